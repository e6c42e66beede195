//! The text format 0.0.4, which every scraper reads, made from OpenMetrics text, which the library writes.
//!
//! Owns: the differences between the two. Must not know: any metric.

/// The same page in the text format.
///
/// Samples are alike in both, and so is their order. What differs: a counter's name has its `_total` in the
/// lines of its family too, an info is a gauge with `_info` in its name, there are no units, and nothing
/// marks the end. Type `unknown` is what this agent calls counters without `_total` (`amazon`), which the
/// text format allows.
pub(super) fn from_open_metrics(page: &str) -> String {
    let mut text = String::with_capacity(page.len());
    let mut help = None;
    for line in page.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        if let Some(described) = line.strip_prefix("# HELP ") {
            // The name depends on the type, which comes next.
            help = described.split_once(' ').map(|(_name, help)| help);
            continue;
        }
        let family = line.strip_prefix("# TYPE ").and_then(|family| family.split_once(' '));
        let Some((name, kind)) = family else {
            push_line(&mut text, &[line]);
            continue;
        };
        let (suffix, kind) = match kind {
            "counter" => ("_total", "counter"),
            "info" => ("_info", "gauge"),
            "unknown" => ("", "counter"),
            same => ("", same),
        };
        if let Some(help) = help.take() {
            push_line(&mut text, &["# HELP ", name, suffix, " ", help]);
        }
        push_line(&mut text, &["# TYPE ", name, suffix, " ", kind]);
    }
    text
}

fn push_line(text: &mut String, pieces: &[&str]) {
    text.extend(pieces.iter().copied());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::from_open_metrics;

    #[test]
    fn each_type_of_family_becomes_what_the_text_format_has_for_it() {
        for (open_metrics, text) in [
            ("# EOF\n", ""),
            (
                "# HELP a Calls.\n# TYPE a counter\na_total{b=\"# TYPE a counter\"} 1\n",
                "# HELP a_total Calls.\n# TYPE a_total counter\na_total{b=\"# TYPE a counter\"} 1\n",
            ),
            (
                "# HELP a_s A.\n# TYPE a_s counter\n# UNIT a_s s\na_s_total 0.5\n",
                "# HELP a_s_total A.\n# TYPE a_s_total counter\na_s_total 0.5\n",
            ),
            (
                "# HELP a The build.\n# TYPE a info\na_info{version=\"1\"} 1\n",
                "# HELP a_info The build.\n# TYPE a_info gauge\na_info{version=\"1\"} 1\n",
            ),
            ("# HELP a A.\n# TYPE a unknown\na 1\n", "# HELP a A.\n# TYPE a counter\na 1\n"),
            (
                "# HELP a_bytes A.\n# TYPE a_bytes gauge\n# UNIT a_bytes bytes\na_bytes 1\n# EOF\n",
                "# HELP a_bytes A.\n# TYPE a_bytes gauge\na_bytes 1\n",
            ),
            (
                "# HELP a A.\n# TYPE a histogram\na_sum 0.0\na_count 0\na_bucket{le=\"+Inf\"} 0\n",
                "# HELP a A.\n# TYPE a histogram\na_sum 0.0\na_count 0\na_bucket{le=\"+Inf\"} 0\n",
            ),
        ] {
            assert_eq!(from_open_metrics(open_metrics), text, "{open_metrics}");
        }
    }
}
