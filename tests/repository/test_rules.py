"""Each rule fails on a tree that breaks it, and passes one that does not."""

import contextlib
import tempfile
import unittest
from pathlib import Path

import check
import citations
import crates
import folders
import named_tests
import sentences
import tasks
import width
import words
from tree import Tree


@contextlib.contextmanager
def tree(**files):
    """A tree of these files; `__` in a name stands for a slash, `DOT` for a dot."""
    with tempfile.TemporaryDirectory() as root:
        for name, text in files.items():
            path = Path(root) / name.replace("__", "/").replace("DOT", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        yield Tree(root)


def found(rule, **files):
    """What a rule finds in a tree of these files, as `rule line` in order."""
    with tree(**files) as planted:
        return sorted(f"{problem.rule} {problem.line}" for problem in rule.check(planted))


PAGE = "# Page\n\n## A heading, with `code`\n\n```sh\n# no heading\n```\n\n## Twice\n\n## Twice\n"
INVARIANTS = "# Invariants\n\n## Invariant 1\n\n## Invariant 2\n"


class Tasks(unittest.TestCase):
    PAGE = (
        "# House\n\n## Tasks\n\n| Task | What |\n| --- | --- |\n| `a`, `b` (essential) | x |\n| `c` | y |\n"
        "| `listener-ipv4` | z |\n\nAlso `d`.\n\n## More\n\n| `e` | no task |\n"
    )
    CODE = (
        'fn f(s: S) {\n s.until_stopped("a", x);\n s.spawn_essential(\n "b", y);\n s.beside("c", z);\n spawn_detached("d", q);\n}\n'
        '#[cfg(test)]\nmod tests { fn t() { tasks.spawn("stuck", p); } }\n'
    )

    def test_each_is_on_the_page_as_it_is(self):
        self.assertEqual(found(tasks, ARCHITECTUREDOTmd=self.PAGE, agent__src__aDOTrs=self.CODE), [])

    def test_a_new_one_a_wrong_one_and_one_that_is_no_more_are_found(self):
        code = self.CODE.replace('beside("c"', 'until_stopped("c"').replace('"b"', '"new"')
        self.assertEqual(
            found(tasks, ARCHITECTUREDOTmd=self.PAGE, agent__src__aDOTrs=code), ["tasks 3", "tasks 5", "tasks 7"]
        )


class Citations(unittest.TestCase):
    def test_a_page_and_a_heading_that_exist_are_good(self):
        source = "// See docs/page.md, docs/page.md#a-heading-with-code and docs/page.md#twice-1.\n"
        self.assertEqual(found(citations, docs__pageDOTmd=PAGE, agent__aDOTrs=source), [])

    def test_a_page_that_is_not_there_is_a_problem(self):
        self.assertEqual(found(citations, agent__aDOTrs="// See docs/page.md.\n"), ["citation 1"])

    def test_a_heading_that_is_not_there_is_a_problem(self):
        for anchor in ("renamed", "no-heading", "twice-2"):
            source = f"\n// See docs/page.md#{anchor}.\n"
            self.assertEqual(found(citations, docs__pageDOTmd=PAGE, agent__aDOTrs=source), ["citation 2"], anchor)

    def test_invariants_are_cited_by_number_also_over_two_lines(self):
        for source, problems in (
            ("// (invariant 2)\n", []),
            ("//! (invariants 1 and 2)\n", []),
            ("//! as the\n//! invariant\n//! 3 says\n", ["citation 2"]),
            ("/// (invariants 1 and 3)\n", ["citation 1"]),
        ):
            have = found(citations, docs__design__invariantsDOTmd=INVARIANTS, agent__aDOTrs=source)
            self.assertEqual(have, problems, source)

    def test_citations_of_what_is_not_in_the_repository_are_problems(self):
        for text in (
            "design 4.5", "design, invariant 2", "(design,\n//! invariant 2)", "of the design (section 2)", "the design's",
            "sdk-contract 8.3", "sdk-contract, section 4", "facts 2.1", "facts\n/// 8", "pains, section 3", "pains 23",
            "table of 4.5", "issue A1",
        ):
            have = found(citations, docs__design__invariantsDOTmd=INVARIANTS, agent__aDOTrs=f"// {text}\n")
            self.assertEqual(have, ["old-citation 1"], text)

    def test_ordinary_sentences_are_no_citations(self):
        for text in ("RFC 7517 section 5", "where the facts come from", "by design", "issue a token", "an invariant"):
            self.assertEqual(found(citations, agent__aDOTrs=f"// {text}\n"), [], text)

    def test_links_of_pages_lead_somewhere(self):
        for link, problems in (
            ("page.md", []), ("page.md#twice", []), ("#own", []), ("../agent/a.rs", []), ("https://example.com/x#y", []),
            ("gone.md", ["citation 3"]), ("page.md#gone", ["citation 3"]), ("#gone", ["citation 3"]),
        ):
            other = f"# Own\n\n[a link]({link})\n"
            have = found(citations, docs__pageDOTmd=PAGE, docs__otherDOTmd=other, agent__aDOTrs="")
            self.assertEqual(have, problems, link)

    def test_paths_of_pages_are_there(self):
        source = "`server/mod.rs` and `tests/run.sh`, but not `server/gone.rs`, and `target/made.json` by a build\n"
        have = found(citations, READMEDOTmd=source, agent__src__server__modDOTrs="", tests__runDOTsh="")
        self.assertEqual(have, ["path 1"])


class Folders(unittest.TestCase):
    def test_arrows_inwards_are_good(self):
        have = found(
            folders,
            agent__src__server__modDOTrs="use crate::credentials::provider::Provider;\n",
            agent__src__credentials__modDOTrs="use crate::{clock::Clock, workload::Pod};\n",
            agent__src__clockDOTrs="// use crate::app::App;\nconst A: &str = \"crate::app\";\n",
        )
        self.assertEqual(have, [])

    def test_arrows_outwards_and_sideways_are_problems(self):
        for own, other in (
            ("credentials", "server"), ("identity", "app"), ("association", "command"), ("node", "server"),
            ("node", "credentials"), ("node", "identity"), ("workload", "config"), ("credentials", "node"),
        ):
            source = {f"agent__src__{own}__modDOTrs": f"\nuse crate::{other}::Thing;\n"}
            self.assertEqual(found(folders, **source), ["arrow 2"], f"{own} -> {other}")

    def test_a_climb_over_the_root_is_an_arrow_too(self):
        source = {"agent__src__node__modDOTrs": "use super::server::Thing;\n", "agent__src__server__modDOTrs": ""}
        self.assertEqual(found(folders, **source), ["arrow 1"])

    def test_a_folder_without_a_layer_is_a_problem(self):
        self.assertEqual(found(folders, agent__src__server__modDOTrs="use crate::utils::x;\n"), ["arrow 1"])

    def test_circles_are_found_in_any_number_of_steps(self):
        edges = folders.defaultdict(set, a={"b"}, b={"c"}, c={"a"}, d={"a"})
        self.assertEqual(folders.circles(edges), ["a", "b", "c"])

    def test_tests_may_look_further_and_what_follows_them_may_not(self):
        have = found(
            folders,
            agent__src__node__modDOTrs="""
#[cfg(test)]
mod tests {
    use crate::app::A;
    fn f() { if x { y() } }
}

#[cfg(test)]
use crate::app::B;

use crate::app::C;
""",
            agent__src__node__linkDOTrs="#[cfg(test)]\nmod cases;\n",
            agent__src__node__link__casesDOTrs="use crate::app::D;\n",
            agent__src__node__casesDOTrs="use crate::app::E;\n",
        )
        self.assertEqual(have, ["arrow 1", "arrow 11"])

    def test_an_exception_that_nothing_needs_is_a_problem(self):
        have = found(folders, agent__src__libDOTrs="pub mod telemetry;\n")
        self.assertEqual(have, ["arrow 1"] * len(folders.EXCEPTIONS))

    def test_a_wrong_arrow_is_no_circle_as_well(self):
        have = found(
            folders,
            agent__src__aws__modDOTrs="use crate::credentials::A;\n",
            agent__src__credentials__modDOTrs="use crate::aws::B;\n",
        )
        self.assertEqual(have, ["arrow 1"])

    def test_every_pair_in_the_tables_has_a_layer(self):
        for own, other in [*folders.PEERS, *folders.FORBIDDEN]:
            self.assertIsNotNone(folders.layer_of(own), own)
            self.assertIsNotNone(folders.layer_of(other), other)
        self.assertTrue(all(folders.EXCEPTIONS.values()), "every exception has its reason")


class Crates(unittest.TestCase):
    def test_a_crate_in_its_place_is_good(self):
        have = found(
            crates,
            agent__src__server__aDOTrs="use hyper::Request;\nfn f() { hyper::body::x() }\n",
            agent__src__aws__aDOTrs="use aws_smithy_types::DateTime;\n",
            agent__src__node__aDOTrs="use crate::aws::hyper::not_a_crate;\n// use kube::Client;\n",
        )
        self.assertEqual(have, [])

    def test_a_crate_elsewhere_is_a_problem(self):
        for crate, folder in (
            ("hyper", "credentials"), ("aws_sdk_sts", "server"), ("aws_smithy_types", "telemetry"), ("moka", "identity"),
            ("rtnetlink", "app"), ("prometheus_client", "credentials"), ("kube", "identity"), ("clap", "config"),
        ):
            for use in (f"use {crate}::x;", f"fn f() -> {crate}::X {{ x() }}"):
                source = {f"agent__src__{folder}__aDOTrs": use + "\n"}
                self.assertEqual(found(crates, **source), ["crate 1"], f"{use} in {folder}")


class Width(unittest.TestCase):
    def test_110_characters_are_good_and_one_more_is_not(self):
        line = "// " + "é" * 107
        self.assertEqual(found(width, agent__aDOTrs=f"{line}\n{line}x\n"), ["width 2"])


class NamedTests(unittest.TestCase):
    SOURCE = "#[test]\nfn good() {}\n\n#[tokio::test(start_paused = true)]\nasync fn later() {}\n\nfn helper() {}\n"

    def test_tests_that_are_there_are_good(self):
        for name in ("tests/a.rs::good", "tests/a.rs::later", "tests/b.py::check_it", "tests/b.py::TABLE", "tests/c.yaml::Alert"):
            have = found(
                named_tests,
                tests__aDOTrs=self.SOURCE,
                tests__bDOTpy="TABLE = {}\ndef check_it():\n    pass\n",
                tests__cDOTyaml="- alertname: Alert\n",
                docs__aDOTmd=f"`{name}`\n",
            )
            self.assertEqual(have, [], name)

    def test_others_and_functions_that_are_no_tests_are_problems(self):
        for name in ("tests/a.rs::goo", "tests/a.rs::helper", "tests/none.rs::good"):
            have = found(named_tests, tests__aDOTrs=self.SOURCE, docs__aDOTmd=f"\n`{name}`\n")
            self.assertEqual(have, ["named-test 2"], name)

    def test_each_row_names_a_test_or_says_why_not(self):
        rows = [f"| {name} | it | is done | `a.rs::b` |" for name in named_tests.IDS]
        self.assertEqual(list(named_tests.rows("\n".join(rows))), [])
        rows[3] = "| F4 | it | is done | no test: why |"
        self.assertEqual(list(named_tests.rows("\n".join(rows))), [])
        rows[3] = "| F4 | it | is done | |"
        self.assertEqual([problem.line for problem in named_tests.rows("\n".join(rows))], [4])
        self.assertEqual(len(list(named_tests.rows("\n".join(rows[:3] + rows[4:])))), 1)


class Sentences(unittest.TestCase):
    SOURCE = 'const A: &str = "Not here";\nfn f() { say(&format!("Here is {a}: {b}"), "code") }\n\n#[cfg(test)]\nmod tests { const T: &str = "In a test"; }\n'
    PAGE = "| The agent says | Status |\n|---|---|\n"

    def found(self, shown, reason="it broke: Connection refused (1)"):
        pages = {"docs__troubleshootingDOTmd": self.PAGE + "".join(f"| `{row}` | 400 |\n" for row in shown), "docs__any-clusterDOTmd": ""}
        reasons = f"| Step | Reason |\n|---|---|\n| TCP | `{reason}` |\n"
        causes = {"agent__src__outgoing__errorDOTrs": 'const A: &str = "it broke";\n', "agent__src__credentials__source__obstacleDOTrs": ""}
        rejection = {"agent__src__server__pages__rejectionDOTrs": self.SOURCE}
        return found(sentences, **rejection, **causes, **pages, **{"docs__private-clustersDOTmd": reasons})

    def test_what_is_said_and_what_is_shown_are_the_same(self):
        self.assertEqual(self.found(["Not here", "Here is …"]), [])

    def test_a_sentence_on_one_side_alone_is_a_problem(self):
        self.assertEqual(self.found(["Not here", "Here is …", "Nowhere to be seen"]), ["sentence 5"])
        self.assertEqual(self.found(["Here is …"]), ["sentence 1"])
        self.assertEqual(self.found(["Not here", "Here is …", "In a test"]), ["sentence 5"])

    def test_a_reason_is_made_of_words_of_the_agent_and_known_ones_of_others(self):
        self.assertEqual(self.found(["Not here", "Here is …"], "it bent: Connection refused (1)"), ["sentence 3"])
        self.assertEqual(self.found(["Not here", "Here is …"], "it broke: who knows"), ["sentence 3"])


class Words(unittest.TestCase):
    def test_each_word_can_be_found(self):
        samples = {
            "crew": "the crew", "boarding": "embark()", "aloft": "Joined::Aloft", "landed": "Landed(x)", "flown": "shared.fly(x)",
            "seat": "seat", "lane": "lanes", "crowd": "Crowd", "witness": "AskWitness witness", "settle": "self.settle(x)",
            "risen": "Waited::Risen", "trouble": "tell_trouble", "seal": "seal", "standing": "standing", "heard": "hears",
            "news": "no news", "furnish": "turn_deaf", "in hand": "in hand", "unwell": "unwell", "is led": "is led to",
            "is told": "is told", "came of it": "came of it", "all the same": "all the same", "of ours": "of ours",
            "must be said": "must be said", "whoever": "Whoever", "whose": "whose", "in vain": "in vain", "house": "house",
        }
        self.assertEqual(sorted(samples), sorted(name for name, *_ in words.WORDS))
        for name, text in samples.items():
            have = found(words, agent__src__aDOTrs=f"\n// {text}\n")
            self.assertIn(f"word {name} 2", have, text)

    def test_the_usual_words_are_good(self):
        source = "// housekeeping of a keyboard, a landscape, dashboards, cached credentials, the same\n"
        self.assertEqual(found(words, agent__src__aDOTrs=source, docs__aDOTmd=source), [])


class Ceilings(unittest.TestCase):
    def test_a_rule_that_is_not_named_may_not_be_broken(self):
        self.assertEqual(check.over_the_ceiling({"width": ["one"]}, {}), {"width": ["one"]})

    def test_a_rule_may_be_broken_as_often_as_its_ceiling_says_and_no_more(self):
        self.assertEqual(check.over_the_ceiling({"width": [1, 2]}, {"width": 2}), {})
        self.assertEqual(list(check.over_the_ceiling({"width": [1, 2, 3]}, {"width": 2})), ["width"])

    def test_ceilings_are_lowered_and_never_raised(self):
        have = check.tightened({"width": [1], "path": [1, 2, 3]}, {"width": 5, "path": 2, "arrow": 1})
        self.assertEqual(have, {"width": 1, "path": 2})

    def test_ceilings_are_written_as_they_are_read(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "ceilings.txt"
            path.write_text("# A comment.\n7 word in hand\n")
            check.write_ceilings({"word in hand": 3, "width": 1}, path)
            self.assertEqual(check.read_ceilings(path), {"word in hand": 3, "width": 1})
            self.assertTrue(path.read_text().startswith("# A comment.\n"))


if __name__ == "__main__":
    unittest.main()
