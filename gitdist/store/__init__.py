"""A content-addressed store: expensive work is a pure function of its spec and is built at most once.

    get_or_build(kind, spec, build)       claim(kind, spec), claim_if_free -> found, or scratch and put(build)
        key = hash(format version, kind, spec)
        STORE/<kind>/<key>/             there and its checksums hold -> return it; damaged -> set aside, build again
        shared place                    there -> fetched into tmp/, checksums compared, renamed into place
        STORE/work/<kind>-<key>/        scratch of the builder, kept until it succeeds (a killed build resumes there)
        STORE/tmp/<kind>-<key>.<token>/ target of the build: files, then fsync, then one rename into place
                                        -> uploaded to the shared place, the manifest last

Who builds, from the nearest to the farthest:

    flock of STORE/locks/<kind>-<key>   processes of one host: free at once when its holder dies
    claim in STORE/claims/              hosts with the same results directory
    claim in the shared place           results directories with the same shared place
"""

from gitdist.store.claim import Claim
from gitdist.store.keys import canonical_json, content_key
from gitdist.store.store import Build, Store

__all__ = ["Build", "Claim", "Store", "canonical_json", "content_key"]
