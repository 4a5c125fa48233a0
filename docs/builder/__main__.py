"""Build the site: python docs/builder FOLDER (`make docs`). Any warning is an error."""

import shutil
import subprocess
import sys
from pathlib import Path

import checks
import navigation
import reference
import sources
import yaml

WORK = sources.ROOT / "build/docs"
THEME = Path(__file__).with_name("theme.yml")


def write_sources() -> dict[str, str]:
    """Markdown of all pages, in every language."""
    copied: set[str] = set()
    pages = {
        page: sources.moved((sources.ROOT / name).read_text(), name, page, copied)
        for page, name in sources.documents().items()
    }
    pages |= reference.pages()
    shutil.rmtree(WORK, ignore_errors=True)
    sources.collect(pages, WORK)
    sources.copy(copied, WORK / "en")
    for language in sources.LANGUAGES:
        shutil.copyfile(Path(__file__).with_name("extra.css"), WORK / language / "extra.css")
    return pages


def configure(language: str, pages: dict[str, str]) -> Path:
    """Write the generator's configuration of a language's site, and say where."""
    theme = yaml.safe_load(THEME.read_text())
    own = [page.removeprefix("zh/") for page in pages if sources.language_of(page) == language]
    settings = (
        theme["all"]
        | theme[language]
        | {"nav": navigation.navigation(language, own)}
        | {"docs_dir": language, "site_dir": f"built-{language}"}
    )
    settings["theme"] |= {"language": language}
    file = WORK / f"{language}.yml"
    file.write_text(yaml.safe_dump(settings, allow_unicode=True, sort_keys=False))
    return file


def main(site: Path) -> None:
    """Build the site into a folder of its own."""
    pages = write_sources()
    shutil.rmtree(site, ignore_errors=True)
    for language in sources.LANGUAGES:
        file = configure(language, pages)
        generator = Path(sys.executable).with_name("zensical")
        subprocess.run(  # noqa: S603  nothing of it comes from elsewhere
            [generator, "build", "--strict", "--clean", "--config-file", file], check=True
        )
        # The English site is the root of all.
        shutil.copytree(WORK / f"built-{language}", site / language.removeprefix("en"), dirs_exist_ok=True)
    # Hosts serve the root's alone.
    (site / "zh/404.html").unlink()
    for page in site.rglob("*.html"):
        page.write_text(sources.with_formulas(sources.with_whole_options(page.read_text())))
    if found := checks.problems(site):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
