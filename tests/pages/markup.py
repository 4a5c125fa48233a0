"""A page as its reader's programs take it: what it says, whether it stands alone, and whether everyone can use it."""

import html.parser
import re

VOID = {"img", "meta", "br"}
FORBIDDEN = r"<(script|link|iframe|object|embed|base)\b|@import|\burl\((?!#)|\son\w+="


class Page(html.parser.HTMLParser):
    """Addresses, headings, tables by id, pictures in their order; unbalanced tags show as a non-empty stack."""

    def __init__(self, path):
        super().__init__()
        self.text = path.read_text()
        self.addresses, self.ids, self.elements, self.stack, self.words = [], [], [], [], ""
        self.headings, self.levels, self.tables = [], [], {}
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.addresses += [
            attributes[name] for name in ("src", "href", "data", "srcset", "action") if name in attributes
        ]
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.elements.append((tag, attributes, tuple(self.stack)))
        if tag in VOID:
            return
        self.stack.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        elif tag == "table":
            self.rows = self.tables[attributes["id"]] = []
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if "style" in self.stack:
            return
        self.words += data
        if not self.stack:
            return
        if self.stack[-1] in ("h2", "h3"):
            self.headings.append(data)
        elif self.stack[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    @property
    def figures(self):
        """The drawings of the page, as text."""
        return re.findall(r"<svg\b.*?</svg>", self.text, re.DOTALL)

    def all(self, tag):
        """Attributes of every such element."""
        return [attributes for name, attributes, _ in self.elements if name == tag]

    def check(self):
        """It stands alone, and everyone can use it."""
        assert self.stack == []
        inner = {address[1:] for address in self.addresses if address.startswith("#")}
        assert inner <= {*self.ids}
        assert all(re.match(r"data:image/png;base64,|#", address) for address in self.addresses)
        assert not re.search(FORBIDDEN, self.text)
        (policy,) = [
            each["content"] for each in self.all("meta") if each.get("http-equiv") == "Content-Security-Policy"
        ]
        assert policy.startswith("default-src 'none'; ")
        assert "script-src" not in policy
        self.check_structure()
        self.check_pictures()
        self.check_tables()
        return self

    def check_structure(self):
        """Language, title, landmarks, headings that go down one level at a time, ids that are there once."""
        assert [each["lang"] for each in self.all("html")] == ["en"]
        assert len(self.all("title")) == len(self.all("main")) == len(self.all("header")) == 1
        assert self.levels[0] == 1
        assert self.levels.count(1) == 1
        assert all(after <= before + 1 for before, after in zip(self.levels, self.levels[1:], strict=False))
        assert len({*self.ids}) == len(self.ids)

    def check_pictures(self):
        """Words for every picture that say what is seen."""
        for image in [each for tag in ("img", "svg") for each in self.all(tag)]:
            label = image.get("alt") or image["aria-label"]
            assert len(label.split()) > 2
        assert all(each["role"] == "img" for each in self.all("svg"))
        assert len(self.all("figure")) == len(self.all("figcaption"))
        regions = [each["aria-label"] for each in self.all("div") if each.get("role") == "region"]
        assert len({*regions}) == len(regions)
        for tag, attributes, around in self.elements:
            if tag == "svg":
                assert "figure" in around
            if "scroll" in attributes.get("class", "").split():
                assert attributes["role"] == "region"
                assert attributes["tabindex"] == "0"
                assert attributes["aria-label"]

    def check_tables(self):
        """Captions, and headers that say of what."""
        assert len(self.all("table")) == len(self.all("caption"))
        for _, attributes, around in [each for each in self.elements if each[0] == "th"]:
            assert attributes["scope"] == ("col" if "thead" in around else "row")
