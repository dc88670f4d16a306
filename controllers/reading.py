"""What caches keep of the objects that people declare: as much as this release can read, and a note of the rest.

The one place where the operator reads an object of Foretide's, so whoever takes one from a cache gets a spec and a
status that its types accept. An object of another release's rules says so itself, by `announce.write_misread`.
"""

from __future__ import annotations

import logging

from crds.reading import listed, understood, unread_of
from kube.informer import lean
from kube.resources import Object

log = logging.getLogger(__name__)


def readable(obj: Object) -> Object:
    """For an informer, in the place of `lean`."""
    read = understood(lean(obj))
    lost = unread_of(read, "status")
    if lost:
        # Its writers write it anew from what they see; nobody has to do anything.
        meta = obj["metadata"]
        where = f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else meta["name"]
        log.warning("Of the status of %s '%s' a part cannot be read: %s", obj.get("kind"), where, listed(lost))
    return read
