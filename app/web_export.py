"""``python -m app export MODEL --web DIR``: the first tab as a folder of files, for a server that only hands them out.

The model runs in the visitor's browser, so no picture leaves it. The page's own sources lie in ``app/web``; what they
use of other projects comes from npm, in the versions of ``package-lock.json``, and is copied with its licences.
"""

from __future__ import annotations

import hashlib
import html
import json
import shutil
import subprocess
from importlib.metadata import distribution
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import Any

import cv2
from PIL import Image

from app import __version__
from app.deploy import LONGEST
from app.errors import DeployError, WeightsError
from app.imaging.examples import draw
from app.model.classifier import Classifier
from app.model.to_onnx import detector_onnx, model_onnx
from app.web_card import SOURCES, web_card

__all__ = ["export_web"]

ICON = Path(__file__).parent / "ui" / "icon.png"
ICONS = (192, 512)
MODEL, DETECTOR = "model.onnx", "detector.onnx"
PAGE = ("style.css", "*.js")
EXAMPLES = ("transverse", "oblique", "spiral")
VENDOR = {
    "onnxruntime-web/dist/ort.wasm.bundle.min.mjs": "ort.wasm.js",
    "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
    "onnxruntime-web/dist/ort.webgpu.bundle.min.mjs": "ort.webgpu.js",
    "onnxruntime-web/dist/ort-wasm-simd-threaded.asyncify.wasm": "ort-wasm-simd-threaded.asyncify.wasm",
    "dcmjs/build/dcmjs.min.js": "dcmjs.min.js",
    "dcmjs-imaging/build/dcmjs-imaging.min.js": "dcmjs-imaging.min.js",
    "dcmjs-imaging/build/dcmjs-native-codecs.wasm": "dcmjs-native-codecs.wasm",
}
"""What is taken of npm's packages, and its name in the folder: some servers do not know ``.mjs`` for a script."""
LICENCES = ("dcmjs/License.txt", "dcmjs-imaging/LICENSE.txt", "dcmjs-codecs/LICENSE.txt", "pako/LICENSE")
RUNTIME_LICENCES = ("onnxruntime/LICENSE", "onnxruntime/ThirdPartyNotices.txt")
"""Of ONNX Runtime, whose package on npm holds none; they come with the same project's package for Python."""
POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval' blob:; worker-src 'self' blob:; "
    "img-src 'self' blob: data:; form-action 'none'; base-uri 'none'"
)
"""What the browser lets the page do: ask nothing of other servers, whatever a script may try."""
ALONE = {
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "cross-origin",
}
"""Headers by which a Space gives the page threads."""


def _packages(folder: Path) -> Path:
    """Installs npm's packages into a folder; returns where they lie.

    Raises:
        DeployError: there is no npm, or it fails.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise DeployError("The page needs npm to fetch what it runs on. Install Node.js 18 or later, then try again.")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(SOURCES / name, folder)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if ran.returncode:
        reason = next((line for line in ran.stderr.splitlines() if "code" in line), f"npm ended with {ran.returncode}")
        raise DeployError(f"npm could not fetch what the page runs on ({reason.strip()}). Is it online?")
    return folder / "node_modules"


def _vendor(target: Path) -> None:
    """Copies what the page uses of other projects, and one file with their licences."""
    target.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as temporary:
        packages = _packages(Path(temporary))
        for source, name in VENDOR.items():
            shutil.copyfile(packages / source, target / name)
        told = {name: (packages / name).read_text(encoding="utf-8") for name in LICENCES}
    runtime = distribution("onnxruntime")
    told |= {name: Path(str(runtime.locate_file(name))).read_text(encoding="utf-8") for name in RUNTIME_LICENCES}
    parts = [f"{'=' * 80}\n{name}\n{'=' * 80}\n\n{text.strip()}\n" for name, text in told.items()]
    (target / "licences.txt").write_text("\n".join(parts), encoding="utf-8")


def _pictures(target: Path, card: dict[str, Any], ours: bool) -> str:
    """Writes icons and, where the model is one of this project's own, drawings to try; returns these as HTML."""
    for side in ICONS:
        with Image.open(ICON) as icon:
            icon.resize((side, side)).save(target / f"icon-{side}.png")
    buttons = []
    for seed, kind in enumerate(EXAMPLES if ours else (), start=1):
        name = f"example-{kind}.png"
        cv2.imwrite(str(target / name), draw(kind, seed=seed))
        picture = f'<img src="{name}" alt="" width="384" height="512">'
        buttons.append(f'<button type="button" data-file="{name}">{picture}<span>{kind}</span></button>')
    return "\n      ".join(buttons)


def _manifest(card: dict[str, Any]) -> str:
    """What a device asks for to install the page."""
    icons = [{"src": f"icon-{side}.png", "sizes": f"{side}x{side}", "type": "image/png"} for side in ICONS]
    told = {
        "name": card["heading"],
        "short_name": card["heading"].split(",")[0],
        "description": card["lead"],
        "start_url": "./",
        "scope": "./",
        "display": "standalone",
        "background_color": "#ffffff",
        "theme_color": "#0f766e",
        "icons": icons,
    }
    return json.dumps(told, indent=1, ensure_ascii=False)


def _readme(card: dict[str, Any], licence: str) -> str:
    """The front matter by which a folder is a static Space, and what it is."""
    from yaml import safe_dump

    title = card["heading"]
    front = {
        "title": title,
        "emoji": "\U0001f9b4" if card["ours"] else "\U0001f50d",
        "colorFrom": "green",
        "colorTo": "gray",
        "sdk": "static",
        "app_file": "index.html",
        "license": "mit",
        "short_description": f"{title}: in your own browser"[:LONGEST],
        "custom_headers": ALONE,
    }
    owned = "" if card["ours"] else f"Licence of the images or weights it is made of: {licence}.\n"
    told = (
        f"# {title}\n\n{card['lead']} The model runs in the visitor's browser: no picture leaves it.\n\n"
        f"{card['intended_use']}\n\nModel: {card['title']} ({card['name']}, SHA-256 {card['sha256']}). "
        f"Written by fracture-explained {__version__}; any server that hands out files can serve this folder.\n"
        f"{owned}"
    )
    return f"---\n{safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n{told}"


def export_web(name: str, weights: Path, folder: Path) -> int:
    """Writes the page without a server.

    Args:
        name: of a model under ``weights``, whose maps are exact.
        weights: folder of models.
        folder: new, empty, or written by an earlier export, whose files it replaces.

    Returns:
        The size of what was written, in bytes.

    Raises:
        WeightsError: the model cannot be used, or not without a server.
        DeployError: npm is missing or fails, or something else lies in the folder.
        ModuleNotFoundError: onnx or onnxruntime is not installed.
        OSError: the folder cannot be written.
    """
    model = Classifier.load(name, weights)
    if model.card.equalise:
        raise WeightsError(f"{name} wants images equalised in contrast, which the page without a server cannot do.")
    if folder.exists() and any(folder.iterdir()) and not (folder / "service-worker.js").is_file():
        raise DeployError(f"{folder} holds something else. Name a folder that is new or empty.")
    files = {MODEL: model_onnx(model.network, model.card, small=True)[0]}
    if model.detector is not None:
        files[DETECTOR] = detector_onnx(model.detector)
    with TemporaryDirectory() as temporary:
        made = Path(temporary) / "page"
        made.mkdir()
        _write(made, model, files)
        if folder.exists():
            shutil.rmtree(folder)
        shutil.copytree(made, folder)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _write(target: Path, model: Classifier, files: dict[str, bytes]) -> None:
    subject = model.card.subject
    card: dict[str, Any] = {**web_card(model), "ours": subject.ours}
    for name, data in files.items():
        (target / name).write_bytes(data)
    _vendor(target / "vendor")
    fetched = [path for path in target.rglob("*") if path.suffix in (".onnx", ".wasm")]
    card["files"] = {path.relative_to(target).as_posix(): path.stat().st_size for path in fetched}
    (target / "card.json").write_text(json.dumps(card, ensure_ascii=False), encoding="utf-8")
    (target / "manifest.webmanifest").write_text(_manifest(card), encoding="utf-8")
    (target / "README.md").write_text(_readme(card, str(model.card.data.get("licence", "unknown"))), encoding="utf-8")
    examples = _pictures(target, card, subject.ours)
    notice, _, more = card["intended_use"].partition(". ")
    told = {"heading": card["heading"], "lead": card["lead"], "model": card["title"], "policy": POLICY}
    told |= {"notice": notice.rstrip(".") + ".", "more_notice": more}
    told = {key: html.escape(each) for key, each in told.items()}
    told |= {"examples": examples, "examples_hidden": "" if examples else " hidden"}
    page = Template(subject.retell((SOURCES / "index.html").read_text(encoding="utf-8")))
    (target / "index.html").write_text(page.substitute(told), encoding="utf-8")
    for path in sorted(path for pattern in PAGE for path in SOURCES.glob(pattern)):
        shutil.copyfile(path, target / path.name)
    _version(target)


def _version(target: Path) -> None:
    """Tells the service worker what the page is made of, and a version that changes with any of its files."""
    worker = target / "service-worker.js"
    own = sorted(path.name for path in target.iterdir() if path.is_file() and path.suffix not in (".onnx", ".md"))
    own.remove(worker.name)
    known = hashlib.sha256()
    for path in sorted(path for path in target.rglob("*") if path.is_file()):
        known.update(path.name.encode() + path.read_bytes())
    told = {"version": known.hexdigest()[:16], "page_files": json.dumps(["./", *own]), "policy": POLICY}
    worker.write_text(Template(worker.read_text(encoding="utf-8")).substitute(told), encoding="utf-8")
