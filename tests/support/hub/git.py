"""A git server with git-lfs: dulwich's, around a repository in memory, and the batch API."""

import hashlib
import io
import json
from typing import TYPE_CHECKING, Any

from dulwich.lfs import LFSPointer
from dulwich.objects import Blob, Commit, Tree
from dulwich.refs import Ref
from dulwich.repo import MemoryRepo
from dulwich.server import DictBackend
from dulwich.web import make_wsgi_chain

if TYPE_CHECKING:
    from hub.server import Handler

LARGE = ".safetensors"


def repository(files: dict[str, bytes]) -> MemoryRepo:
    """The files in one commit on main, after one without them, as the tag v1 too; large files as pointers."""
    repo = MemoryRepo()
    empty = Tree()
    repo.object_store.add_object(empty)
    first = _commit(repo, empty, [])
    root, folders = Tree(), dict[str, Tree]()
    for name, content in files.items():
        if name.endswith(LARGE):
            content = LFSPointer(hashlib.sha256(content).hexdigest(), len(content)).to_bytes()
        blob = Blob.from_string(content)
        repo.object_store.add_object(blob)
        folder, _, base = name.rpartition("/")
        tree = folders.setdefault(folder, Tree()) if folder else root
        tree.add(base.encode(), 0o100644, blob.id)
    for folder, tree in folders.items():
        repo.object_store.add_object(tree)
        root.add(folder.encode(), 0o040000, tree.id)
    repo.object_store.add_object(root)
    head = _commit(repo, root, [first.id])
    main = Ref(b"refs/heads/main")
    repo.refs[main] = repo.refs[Ref(b"refs/tags/v1")] = head.id
    repo.refs.set_symbolic_ref(Ref(b"HEAD"), main)
    return repo


def git(handler: "Handler", path: str, query: str) -> bytes | None:
    """What the git server answers; None: nothing."""
    hub = handler.hub
    base, _, rest = path.partition(".git")
    body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
    if rest == "/info/lfs/objects/batch":
        handler.content_type = "application/vnd.git-lfs+json"
        return _batch(hub.store or hub.url, json.loads(body))
    answered: dict[str, Any] = {}

    def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> Any:
        answered.update(status=int(status[:3]), headers=dict(headers))
        return out.write

    out = io.BytesIO()
    environ = {
        "REQUEST_METHOD": handler.command,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "CONTENT_TYPE": handler.headers.get("Content-Type", ""),
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
    }
    application = make_wsgi_chain(DictBackend({base + ".git": repository(hub.files)}))  # type: ignore[arg-type]
    for piece in application(environ, start_response):
        out.write(piece)
    handler.content_type = answered["headers"].get("Content-Type", "")
    return out.getvalue() if answered["status"] == 200 else None


def _batch(url: str, question: dict[str, Any]) -> bytes:
    """Every large file is at /public/<its sum>, for whoever knows that."""
    objects = [
        {**entry, "actions": {"download": {"href": f"{url}/public/{entry['oid']}"}}} for entry in question["objects"]
    ]
    return json.dumps({"transfer": "basic", "objects": objects}).encode()


def _commit(repo: MemoryRepo, tree: Tree, parents: list[bytes]) -> Commit:
    commit = Commit()
    commit.tree, commit.parents = tree.id, parents  # type: ignore[assignment]
    commit.author = commit.committer = b"Tests <tests@localhost>"
    commit.author_time = commit.commit_time = 0
    commit.author_timezone = commit.commit_timezone = 0
    commit.message = b"files"
    repo.object_store.add_object(commit)
    return commit
