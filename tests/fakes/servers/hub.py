"""The part of the Hugging Face hub's HTTP that a small repository of models needs, in memory."""

import base64
import hashlib
import json
from dataclasses import dataclass, field

from fastapi import FastAPI, Request, Response


@dataclass
class FakeHub:
    """Repositories by name; each commit keeps all files, and its name is a digest of them."""

    token: str = "hf_secret"  # noqa: S105 - of no hub
    commits: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    heads: dict[str, str] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    downloads: list[str] = field(default_factory=list)

    def files(self, repo: str) -> dict[str, bytes]:
        return self.commits[repo][self.heads[repo]]

    def create(self, repo: str) -> None:
        self.commits.setdefault(repo, {})
        self.commit(repo, {})

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        name = hashlib.sha1(  # noqa: S324 - as git names a commit
            b"".join(key.encode() + files[key] for key in sorted(files))
        ).hexdigest()
        self.commits[repo][name] = files
        self.heads[repo] = name
        return name

    def find(self, repo: str, revision: str) -> str | None:
        name = self.heads.get(repo) if revision == "main" else revision
        return name if name in self.commits.get(repo, {}) else None

    def app(self) -> FastAPI:
        app = FastAPI()
        model = "/api/models/{owner}/{name}"
        app.add_route("/api/repos/create", self._create, methods=["POST"])
        app.add_route("/api/validate-yaml", self._validate, methods=["POST"])
        app.add_route(model + "/preupload/{revision}", self._preupload, methods=["POST"])
        app.add_route(model + "/commit/{revision}", self._commit, methods=["POST"])
        app.add_route(model + "/revision/{revision}", self._describe)
        app.add_route(model + "/tree/{revision}", self._tree)
        app.add_route("/{owner}/{name}/resolve/{revision}/{path}", self._resolve)
        return app

    def _is_known(self, request: Request) -> bool:
        return request.headers.get("authorization") == f"Bearer {self.token}"

    def _asked(self, request: Request) -> tuple[str, str | None]:
        """The repository, and the commit of the revision where there is one."""
        repo = "{owner}/{name}".format(**request.path_params)
        return repo, self.find(repo, request.path_params["revision"])

    async def _create(self, request: Request) -> Response:
        if not self._is_known(request):
            return _refusal(401, "RepoNotFound")
        body = await request.json()
        repo = f"{body.get('organization') or 'me'}/{body['name']}"
        if repo in self.commits:
            return _json({"url": f"{request.base_url}{repo}"}, status=409)
        self.create(repo)
        if body.get("private") or body.get("visibility") == "private":
            self.private.add(repo)
        return _json({"url": f"{request.base_url}{repo}", "id": repo})

    async def _validate(self, _request: Request) -> Response:
        return _json({"errors": [], "warnings": []})

    async def _preupload(self, request: Request) -> Response:
        asked = (await request.json())["files"]
        mode = {"uploadMode": "regular", "shouldIgnore": False}
        return _json({"files": [{"path": file["path"], **mode} for file in asked]})

    async def _commit(self, request: Request) -> Response:
        if not self._is_known(request):
            return _refusal(401, "RepoNotFound")
        repo, _ = self._asked(request)
        files = dict(self.files(repo))
        for line in (await request.body()).splitlines():
            item = json.loads(line)
            if item["key"] == "file":
                files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
        made = self.commit(repo, files)
        url = f"{request.base_url}{repo}/commit/{made}"
        return _json({"success": True, "commitOid": made, "commitUrl": url, "hookOutput": ""})

    async def _describe(self, request: Request) -> Response:
        repo, found = self._asked(request)
        if repo not in self.commits:
            return _refusal(401, "RepoNotFound")
        if found is None:
            return _refusal(404, "RevisionNotFound")
        siblings = [{"rfilename": path} for path in self.commits[repo][found]]
        return _json({"id": repo, "sha": found, "siblings": siblings})

    async def _tree(self, request: Request) -> Response:
        repo, found = self._asked(request)
        files = self.commits.get(repo, {}).get(found or "", {})
        return _json(
            [
                {"type": "file", "path": path, "size": len(data), "oid": _git_digest(data)}
                for path, data in files.items()
            ]
        )

    async def _resolve(self, request: Request) -> Response:
        repo, found = self._asked(request)
        path = request.path_params["path"]
        data = self.commits.get(repo, {}).get(found or "", {}).get(path)
        if data is None or found is None:
            return _refusal(404, "EntryNotFound")
        if request.method == "GET":
            self.downloads.append(path)
        headers = {"etag": f'"{_git_digest(data)}"', "x-repo-commit": found}
        return Response(data, headers=headers, media_type="application/octet-stream")


def _git_digest(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # noqa: S324 - git's


def _json(value: object, *, status: int = 200) -> Response:
    return Response(json.dumps(value), status_code=status, media_type="application/json")


def _refusal(status: int, code: str) -> Response:
    return Response(status_code=status, headers={"x-error-code": code, "x-error-message": code})
