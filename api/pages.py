"""The pages for people: the document to try out, with no assets from anywhere else."""

from importlib import resources
from pathlib import PurePosixPath
from typing import Final

from api.http import Answer

ASSETS: Final = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
STARTER: Final = """\
window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#ui",
  deepLinking: true,
  persistAuthorization: true,
  validatorUrl: null,
});
"""
PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Counterfoil API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="icon" href="/docs/favicon-32x32.png">
</head>
<body>
<div id="ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
POLICY: Final = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'"
)


def docs() -> Answer:
    """The page."""
    headers = {"Content-Security-Policy": POLICY}
    return Answer(
        status=200, body=PAGE.encode(), headers=headers, media_type="text/html; charset=utf-8"
    )


def docs_asset(name: str) -> Answer | None:
    """One of the page's own files, or None."""
    if name == "start.js":
        return Answer(status=200, body=STARTER.encode(), media_type="text/javascript")
    if name not in ASSETS:
        return None
    file = resources.files("flask_swagger_ui") / "dist" / str(PurePosixPath(name))
    return Answer(
        status=200,
        body=file.read_bytes(),
        headers={"Cache-Control": "max-age=86400"},
        media_type=ASSETS[name],
    )
