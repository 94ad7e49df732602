"""Places: files and folders on this machine, on a shared folder, or in an object store such as ``s3://bucket/prefix``.

Whatever is written appears whole or not at all. Credentials come from the environment or the usual configuration of
the store's own client; they are no part of a place, so they reach neither a plan, nor a message, nor a worker.

* `place`   files and folders by path or URL
* `folder`  those of the file system
* `store`   those of an object store, through fsspec
"""

from restore.storage.folder import Stat
from restore.storage.place import Place, place
from restore.storage.store import disconnect

__all__ = ["Place", "Stat", "disconnect", "place"]
