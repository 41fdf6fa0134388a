"""The part of S3's HTTP that an object store needs, in memory; it checks no signatures."""

import datetime as dt
import hashlib
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

from fastapi import FastAPI, Request, Response

BUCKET = "library"


@dataclass
class FakeBucket:
    """The objects of a bucket by key, and the parts of those that are being put."""

    objects: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)

    def app(self) -> FastAPI:
        app = FastAPI()
        app.add_route(f"/{BUCKET}", self._list, methods=["GET"])
        app.add_route(f"/{BUCKET}", self._delete_many, methods=["POST"])
        app.add_route(f"/{BUCKET}/{{key:path}}", self._put, methods=["PUT"])
        app.add_route(f"/{BUCKET}/{{key:path}}", self._get, methods=["GET", "HEAD"])
        app.add_route(f"/{BUCKET}/{{key:path}}", self._upload, methods=["POST"])
        app.add_route("/{other:path}", _missing, methods=["GET", "HEAD", "PUT", "POST"])
        return app

    async def _put(self, request: Request) -> Response:
        body = await request.body()
        number = request.query_params.get("partNumber")
        if number is None:
            self.objects[request.path_params["key"]] = body
        else:
            self.parts[request.query_params["uploadId"]][int(number)] = body
        return Response(headers={"etag": _etag(body)})

    async def _upload(self, request: Request) -> Response:
        key = request.path_params["key"]
        if "uploads" in request.query_params:
            self.parts[key] = {}
            return _xml("InitiateMultipartUploadResult", UploadId=key)
        parts = self.parts.pop(request.query_params["uploadId"])
        self.objects[key] = b"".join(parts[number] for number in sorted(parts))
        return _xml("CompleteMultipartUploadResult", ETag=_etag(self.objects[key]))

    async def _get(self, request: Request) -> Response:
        found = self.objects.get(request.path_params["key"])
        if found is None:
            return await _missing(request)
        modified = "Fri, 27 Nov 2026 08:00:00 GMT"
        return Response(found, headers={"etag": _etag(found), "last-modified": modified})

    async def _list(self, request: Request) -> Response:
        listing = ET.Element("ListBucketResult")
        for key in sorted(self.objects):
            if key.startswith(request.query_params.get("prefix", "")):
                item = ET.SubElement(listing, "Contents")
                ET.SubElement(item, "Key").text = key
                ET.SubElement(item, "Size").text = str(len(self.objects[key]))
                ET.SubElement(item, "LastModified").text = dt.datetime.now(dt.UTC).isoformat()
        return Response(ET.tostring(listing), media_type="application/xml")

    async def _delete_many(self, request: Request) -> Response:
        asked = ET.fromstring(await request.body())  # noqa: S314 - our own client's
        told = ET.Element("DeleteResult")
        for key in asked.iterfind(".//{*}Key"):
            self.objects.pop(str(key.text), None)
            ET.SubElement(ET.SubElement(told, "Deleted"), "Key").text = key.text
        return Response(ET.tostring(told), media_type="application/xml")


async def _missing(_request: Request) -> Response:
    return Response(status_code=404)


def _etag(data: bytes) -> str:
    return f'"{hashlib.sha256(data).hexdigest()}"'


def _xml(name: str, **texts: str) -> Response:
    root = ET.Element(name)
    for tag, text in texts.items():
        ET.SubElement(root, tag).text = text
    return Response(ET.tostring(root), media_type="application/xml")
