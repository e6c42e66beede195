//! Which format of the metrics a scraper gets, by its `Accept` header.
//!
//! Owns: reading that header (RFC 9110, 12.5.1), as far as two formats need it. Must not know: what is in
//! them.

use http::HeaderMap;
use http::header::ACCEPT;

use crate::telemetry::metrics::Format;

/// OpenMetrics where it is named and not less welcome than plain text, else the text format, which every
/// scraper reads.
pub(super) fn metrics_format(headers: &HeaderMap) -> Format {
    let accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges: Vec<MediaRange<'_>> =
        accept.flat_map(|value| value.split(',')).map(MediaRange::parse).collect();
    let quality = |names: &[&str]| {
        // A range that names a type counts before one that has it among others.
        names.iter().find_map(|name| {
            let qualities = ranges.iter().filter(|range| range.is(name)).map(|range| range.quality);
            qualities.reduce(f32::max)
        })
    };
    let open_metrics = quality(&["application/openmetrics-text"]).unwrap_or(0.0);
    let text = quality(&["text/plain", "text/*", "*/*"]).unwrap_or(0.0);
    if open_metrics > 0.0 && open_metrics >= text { Format::OpenMetrics } else { Format::Text }
}

/// One entry of the header, as `text/plain;version=0.0.4;q=0.3`.
struct MediaRange<'a> {
    name: &'a str,
    version: Option<&'a str>,
    quality: f32,
}

impl<'a> MediaRange<'a> {
    fn parse(entry: &'a str) -> Self {
        let mut parts = entry.split(';').map(str::trim);
        let mut range = Self { name: parts.next().unwrap_or_default(), version: None, quality: 1.0 };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            if name.trim().eq_ignore_ascii_case("q") {
                // What is not a number between 0 and 1 is not wanted.
                let quality = value.parse().ok().filter(|quality| (0.0..=1.0).contains(quality));
                range.quality = quality.unwrap_or(0.0);
            } else if name.trim().eq_ignore_ascii_case("version") {
                range.version = Some(value);
            }
        }
        range
    }

    /// Whether it is this type, in the version that the agent writes.
    fn is(&self, name: &str) -> bool {
        let version = match name {
            "application/openmetrics-text" => "1.0.0",
            _ => "0.0.4",
        };
        self.name.eq_ignore_ascii_case(name) && self.version.is_none_or(|wanted| wanted == version)
    }
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT;
    use http::{HeaderMap, HeaderValue};

    use super::metrics_format;
    use crate::telemetry::metrics::Format::{OpenMetrics, Text};

    #[test]
    fn open_metrics_is_for_those_who_prefer_it_and_the_text_format_for_all_others() {
        let prometheus_2 = "application/openmetrics-text;version=1.0.0;q=0.5,\
                            application/openmetrics-text;version=0.0.1;q=0.4,\
                            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let prometheus_3 = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                            encoding=delimited;q=0.7,application/openmetrics-text;version=1.0.0;\
                            escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,\
                            text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            (vec![], Text),
            (vec![""], Text),
            (vec!["*/*"], Text),
            (vec!["text/plain"], Text),
            (vec!["application/json"], Text),
            (vec!["text/html,application/xhtml+xml,*/*;q=0.8"], Text),
            (vec!["application/openmetrics-text"], OpenMetrics),
            (vec!["Application/OpenMetrics-Text; Version=1.0.0; charset=utf-8"], OpenMetrics),
            (vec!["application/openmetrics-text; version=\"1.0.0\""], OpenMetrics),
            (vec!["application/openmetrics-text;version=0.0.1"], Text),
            (vec!["application/openmetrics-text;version=2.0.0,*/*;q=0.1"], Text),
            (vec!["application/*"], Text),
            (vec!["application/openmetrics-text, text/plain"], OpenMetrics),
            (vec!["text/plain", "application/openmetrics-text"], OpenMetrics),
            (vec!["application/openmetrics-text;q=0.5, text/plain;version=0.0.4"], Text),
            (vec!["application/openmetrics-text;q=0.5, text/plain;q=0.4, */*"], OpenMetrics),
            (vec!["application/openmetrics-text;q=0.5, */*"], Text),
            (vec!["application/openmetrics-text;q=0"], Text),
            (vec!["application/openmetrics-text;q=0, */*;q=0"], Text),
            (vec!["application/openmetrics-text;q=2"], Text),
            (vec!["application/openmetrics-text;q=NaN"], Text),
            (vec!["application/openmetrics-text;q= 1"], OpenMetrics),
            (vec![prometheus_2], OpenMetrics),
            (vec![prometheus_3], OpenMetrics),
        ] {
            let values = accept.iter().map(|value| (ACCEPT, HeaderValue::from_str(value).unwrap()));
            let mut headers = HeaderMap::new();
            for (name, value) in values {
                headers.append(name, value);
            }
            assert_eq!(metrics_format(&headers), format, "{accept:?}");
        }
    }

    #[test]
    fn a_header_that_is_not_text_is_passed_over() {
        let mut headers = HeaderMap::new();
        headers.append(ACCEPT, HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(metrics_format(&headers), Text);
        headers.append(ACCEPT, HeaderValue::from_static("application/openmetrics-text"));
        assert_eq!(metrics_format(&headers), OpenMetrics);
    }
}
