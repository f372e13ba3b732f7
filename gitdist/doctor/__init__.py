"""Whether this machine, a cluster and the services of a study will do: findings, each with its remedy."""
