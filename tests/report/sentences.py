"""Every number in the sentences of a summary and of a page is that of the study's tables."""

import html
import re

import pandas as pd

from singflow.analyses.power import images_needed
from singflow.artifacts.tables import read_table
from singflow.report.summary import OF_D, OF_R2, OF_SCORES

NUMBER, SIGNS = r"-?[\d.,]*\d(?:e-\d+)?", "*~+^#!"
N, PERCENT = rf"({NUMBER})", rf"((?:more than )?{NUMBER}) %"
SIZE = rf"((?:below )?{NUMBER} %(?: \[{NUMBER}, {NUMBER}\])?)"
RANGE = rf"{N} % \((\S+)\)(?: to {N} % \((\S+)\))?"
# Words of the method, whose numbers are not of the study.
CONSTANT = (
    r"9 of 10 trials|leak of 10 % that is spread evenly|Above 100 %|"
    r"clip_vit_l14|should be 0|float\d\d"
)

UNREAD = (  # parts of a page without sentences of the study
    r"<(table|details|select|nav|figure|h[123])\b.*?</\1>|"
    r'<p class="quiet undrawn">.*?</p>'
)


def digits(value, places):
    return f"{value:z.{places}f}"


def percent(share):
    """Two digits of a share in percent."""
    return "more than 30" if pd.isna(share) else f"{float(f'{100 * share:.2g}'):g}"


def size(numbers, places, unit=" %"):
    """A number and the ends of its interval, as far as they are known."""
    known = [number for number in numbers if pd.notna(number)]
    if not known:
        return "-"
    if max(map(abs, known)) < 0.5 * 10**-places:
        return f"below {0.5 * 10**-places:g}{unit}"
    value, *ends = (digits(number, places) for number in known)
    return f"{value}{unit} [{', '.join(ends)}]" if ends else f"{value}{unit}"


class Tables:
    """The tables of one study, of one space, and what sentences must say of them."""

    def __init__(self, results):
        self.read = lambda name: read_table(results / f"tables/{name}.csv")
        self.models = self.read("models").set_index("model")
        self.images = len(pd.read_parquet(results / "data/manifest.parquet"))

    def row(self, name):
        return self.models.loc[name.strip(SIGNS)]

    def nothing(self, name, *_):
        row = self.row(name)
        return name, f"{row['n_evidence']:,}", percent(row["detectable"])

    def dropped(self, name, *_):
        row = self.row(name)
        least = digits(100 * max(row["unique_r2_low"], row["margin"]), 1)
        texts = self.hidden("hidden_texts").query("model == @name.strip(@SIGNS)")
        texts = texts.drop_duplicates("text").set_index("text")["hidden"].astype(bool)
        *most, last = texts.index[texts][:3]
        named = f"{', '.join(most)} and {last}" if most else last
        return name, least, named, f"{texts.sum():,}", f"{len(texts):,}"

    def needed(self, name, *_):
        row = self.row(name)
        found = None if pd.isna(row["unique_r2_low"]) else row["detectable"]
        n, width = int(row["n_evidence"]), int(row["rank"] + row["null_dim"])
        return name, f"{n:,}", f"{images_needed(n, width, 0.1, found):,}"

    def ends(self, column):
        """The smallest and the largest number of a column, with names of models."""
        of = self.models[column].dropna().clip(lower=0).sort_values(kind="stable")
        found = [word for name in of.index[[0, -1]] for word in (percent(of[name]), name)]
        return tuple(found if len(of) > 1 else [*found[:2], None, None])

    def blind(self, *_):
        of = self.models["blind_unique_r2"].dropna().sort_values(kind="stable")
        margin = percent(self.models["margin"].iloc[0])
        return size([100 * of.iloc[-1]], 2), of.index[-1], margin

    def paper(self, name, *_):
        row = self.row(name)
        ratio = "-" if pd.isna(row["is_per_as"]) else digits(row["is_per_as"], 1)
        return name, f"{row['as_mean']:+z.2f}", digits(row["as_abs_mean"], 2), ratio

    def hidden(self, name):
        table = self.read(name).dropna(subset=["p"])
        return table.sort_values("unique_r2", ascending=False, kind="stable")

    def group(self, by, name, _):
        rows = self.hidden("hidden_groups").query("hidden and group == @name")
        kind = {"predicted class": "predicted", "group of images": "column"}.get(by, by)
        largest = rows[rows["by"] == kind]["unique_r2"]
        return by, name, max(map(percent, largest), default=None)

    def pair(self, *said):
        """A difference of D with its interval, and p of Holm; the order of names is its sign."""
        for row in self.read("model_pairs").to_dict("records"):
            low, high = sorted(abs(row[end]) * (1 if row[end] * row["difference"] >= 0 else -1)
                               for end in ("low", "high"))  # fmt: skip
            found = size([100 * abs(row["difference"]), 100 * low, 100 * high], 2)
            found = found, f"{row['p_holm']:.2g}"
            if found == said:
                return found
        return None


TEMPLATES = {
    rf"(\S+): no reason to keep the features: {N} images show nothing in its null space \(a "
    rf"leak of {PERCENT}, spread evenly, would show": Tables.nothing,
    r"(\S+): (?:keep the features|known leak, found as it should be): its head drops at least "
    rf"{N} % of the meaning, (.+?) first \({N} of {N} texts are hidden\)": Tables.dropped,
    rf"(\S+): no clear reason to keep the features: its null space adds a trace, {N} % of the "
    rf"meaning, not surely more than the margin of {N} %": lambda own, name, *_: (
        name, *map(percent, own.row(name)[["unique_r2", "margin"]])
    ),
    rf"(\S+): too few images to tell: {N} where about {N} would show 10 %": Tables.needed,
    r"(\S+): cannot tell: the translator explains nothing \(R2 (-?[\d.]+)\)": (
        lambda own, name, _: (name, digits(own.row(name)["validation_r2"], 3))
    ),
    rf"By (label|predicted class|group of images), D is largest for images of (.+?) \({N} %\)": (
        Tables.group
    ),
    rf"D (?:is a lower bound: it )?shows {RANGE} of a": lambda own, *_: own.ends("gain"),
    rf"The logits predict {RANGE} of": lambda own, *_: own.ends("null_r2"),
    rf"The largest D is {SIZE} \((\S+)\); the margin is {N} %": Tables.blind,
    rf"(\S+) ([+-][\d.]+), {N}, ({NUMBER}|-)(?=[;. ]|$)": Tables.paper,
    rf"{SIZE}, p = {N}": Tables.pair,
    rf"By D, {N} of {N} pairs of models differ": lambda own, *_: (
        str(own.read("model_pairs")["differ"].sum()), str(len(own.read("model_pairs")))
    ),
    rf"{N} images(?:,| under) {N} labels": lambda own, *_: (
        str(own.images), str(own.read("labels")["label"].nunique())
    ),
    rf"fitted on {N} rows of the reference": lambda own, _: (str(own.models["n_train"].max()),),
    rf"cross-fitted in {N} folds": lambda own, _: (str(own.models["folds"].max()),),
    rf"seed {N}": lambda own, _: (str(own.models["seed"].iloc[0]),),
    rf"(\S+) \({N} %, (?:like a guess|reported {N} %)\)": lambda own, name, *_: (
        name, digits(100 * own.row(name)["top1"], 1),
        None if pd.isna(own.row(name)["reported_top1"]) else f"{own.row(name)['reported_top1']:g}"
    ),
    rf"less than {N} of the held-out images \(R²\)": lambda *_: ("0.2",),
    rf"(\S+) has rank {N} at the precision of its stored weights \((\w+)\), and {N} at float64": (
        lambda own, name, *_: (name, *(
            str(own.row(name)[of]) for of in ("rank_stored", "weight_dtype", "rank_float64")
        ))
    ),
    rf"{N} of {N} files were left out": lambda own, out, _: (out, str(own.images + int(out))),
    rf"{N} files were found, {N} used and {N} left out": lambda own, found, used, out: (
        str(own.images + int(out)), str(own.images), out
    ),
}  # fmt: skip


def audit(own, text):
    """All numbers of a text stand in sentences that the tables confirm."""
    text = " ".join(text.split())
    for words in (OF_D, OF_SCORES, OF_R2):
        text = text.replace(words.strip(), "")
    text = re.sub(CONSTANT, "", text)
    checked = 0
    for pattern, expected in TEMPLATES.items():
        for match in re.finditer(pattern, text):
            assert expected(own, *match.groups()) == match.groups(), match[0]
            checked += 1
        text = re.sub(pattern, "", text)
    names = [*own.models.index, *own.read("labels")["label"], *own.hidden("hidden_texts")["text"]]
    for name in sorted(map(str, names), key=len, reverse=True):
        text = text.replace(name, "")
    assert not re.search(r"[^.:;]*\d[^.:;]*", text), re.findall(r"[^.:;]*\d[^.:;]*", text)
    return checked


def cells(own, name, page):
    """The cells of a row of the table in the summary, or of the tables of the page."""
    row = own.row(name)
    d = [row[f"unique_r2{end}"] for end in ("", "_low", "_high")]
    value = size([100 * end for end in d], 1) if page else size(d, 3, "")
    turn = "-" if pd.isna(row["turn_deg"]) else digits(row["turn_deg"], 0) + "°" * page
    sizes = f"{percent(row['detectable'])} % ({percent(row['detectable_first'])} %)"
    r2 = [digits(row[of], 2) if pd.notna(row[of]) else "-" for of in ("validation_r2", "r2_words")]
    is_deg, floor = (digits(row[of], 1) for of in ("is_mean", "floor_is_mean"))
    shown = [f"{is_deg}° ({floor}°)"] if page else [is_deg, floor]
    return [value, turn, "-" if value == "-" else sizes, f"{r2[0]} ({r2[1]})", *shown]


def check_study(results):
    """Check the summary and the page of a finished study of one space; the sentences checked."""
    own = Tables(results)
    summary = (results / "tables/summary.txt").read_text(encoding="utf-8")
    head, _, rest = summary.partition("Space ")
    table, _, rest = rest.partition("\nThe paper's scores")
    for line in table.splitlines()[2:]:
        name, *shown = re.split(r"\s{2,}", line.strip())
        if name.strip(SIGNS) == "own words":
            assert size([own.models["blind_unique_r2"].max()], 3, "") in shown, line
            continue
        assert set(cells(own, name, page=False)) <= set(shown), line
    checked = audit(own, head + rest)
    page = (results / "report.html").read_text(encoding="utf-8")
    body = page.partition('<section id="models">')[2].partition('<div id="glossary"')[0]
    rows = re.findall(r'<tr><th scope="row">([^<]*)</th>(.*?)</tr>', body)
    for name, values in rows:
        if name.strip(SIGNS) in own.models.index and "code" not in values:
            shown = set(re.findall("<td>(.*?)</td>", values))
            blind = size([100 * own.row(name)["blind_unique_r2"]], 2)
            assert shown <= {*cells(own, name, page=True), blind}
    body = html.unescape(re.sub(r"<[^>]+>", " ", re.sub(UNREAD, " ", body, flags=re.DOTALL)))
    body = re.sub(r" (?=[:.,;)])", "", " ".join(body.split()))
    return checked + audit(own, body.replace("95 % intervals", ""))
