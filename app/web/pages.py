"""The front page and the interactive API, with all that they load."""

from pathlib import Path
from typing import Final

from fastapi import APIRouter, Depends, HTTPException
from fastapi.responses import FileResponse, Response

from app.api.http.access import PUBLIC

STATIC: Final = Path(__file__).parent / "static"
ASSETS: Final = {
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
    "docs.js": ("docs.js", "text/javascript"),
    "swagger-ui.css": ("swagger-ui/swagger-ui.css", "text/css"),
    "swagger-ui-bundle.js": ("swagger-ui/swagger-ui-bundle.js", "text/javascript"),
}
ASSET_SECONDS: Final = 3600
# Nothing is loaded from elsewhere, and nobody may put these pages into a frame.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "style-src 'self'{inline}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

router = APIRouter(include_in_schema=False, dependencies=[Depends(PUBLIC)])


@router.get("/")
async def front_page() -> Response:
    """What this is and where to go."""
    return _page("index.html", inline="")


@router.get("/docs")
async def interactive_api() -> Response:
    """Every route, to read and to try."""
    # Swagger UI sets styles on its elements.
    return _page("docs.html", inline=" 'unsafe-inline'")


@router.get("/docs/{name}")
async def asset(name: str) -> Response:
    """A file that one of the pages loads."""
    if name not in ASSETS:
        raise HTTPException(404)
    path, media_type = ASSETS[name]
    headers = {"cache-control": f"public, max-age={ASSET_SECONDS}"}
    return FileResponse(STATIC / path, media_type=media_type, headers=headers)


def _page(name: str, *, inline: str) -> Response:
    headers = {
        "content-security-policy": _POLICY.format(inline=inline),
        "referrer-policy": "no-referrer",
    }
    return FileResponse(STATIC / name, media_type="text/html", headers=headers)
