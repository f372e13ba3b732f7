"""A content-addressed store: expensive work is a pure function of its spec and is built at most once.

    get_or_build(kind, spec, build)         lock(kind, spec, blocking) -> found, or scratch and publish(build)
        key = hash(format version, kind, spec)
        STORE/<kind>/<key>/             there, and its checksums match -> return it; damaged -> move it aside, rebuild
        shared store                    there -> fetch into tmp/, compare checksums, rename into place
        STORE/work/<kind>-<key>/        scratch of the builder, kept until it succeeds (a killed build resumes there)
        STORE/tmp/<kind>-<key>.<token>/ target of the build: files, fsync, one rename into place
                                        -> uploaded to the shared store, the manifest last

A build lock (``locks``) lets one process build, over all hosts that share the store's directory or its shared store.
Pins (``pins``) keep what running studies use; ``gc`` deletes what was not used for longest.
"""

from gitdist.store.artifact import canonical_json, content_key
from gitdist.store.store import Artifact, Build, Store

__all__ = ["Artifact", "Build", "Store", "canonical_json", "content_key"]
