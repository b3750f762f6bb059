//! What came of tests as JUnit's XML, which CI servers read.

use super::cases::{Ran, is_of};
use crate::cases::Finding;

/// One `testcase` a test: its class is its file, a failure holds the differences of all its lookups.
pub fn report(ran: &Ran) -> String {
    let findings = ran.report.findings();
    let mut cases = String::new();
    let mut failures = 0;
    for test in ran.suites.iter().flat_map(|suite| &suite.tests) {
        let own: Vec<Finding> = findings.iter().filter(|finding| is_of(finding, test)).cloned().collect();
        let head = format!(
            "    <testcase classname=\"{}\" name=\"{}\" file=\"{0}\" line=\"{}\"",
            escaped(&test.file),
            escaped(&test.name),
            test.line
        );
        match own.first() {
            None => cases.push_str(&format!("{head}/>\n")),
            Some(Finding { difference: first, .. }) => {
                failures += 1;
                let message = format!("{}: expected {}, found {}", first.feature, first.expected, first.found);
                let more = if own.len() > 1 { format!("; and {} more", own.len() - 1) } else { String::new() };
                cases.push_str(&format!(
                    "{head}>\n      <failure type=\"difference\" message=\"{}\">{}</failure>\n    </testcase>\n",
                    escaped(&format!("{message}{more}")),
                    escaped(&ran.told(&own))
                ));
            }
        }
    }
    let seconds = ran.took_us as f64 / 1e6;
    document(ran.tests(), failures, 0, seconds, &cases)
}

/// Definitions that could not be tested at all.
pub fn broken(place: &str, message: &str) -> String {
    let case = format!(
        "    <testcase classname=\"{0}\" name=\"definitions\">\n      <error type=\"definitions\" message=\"{1}\">{1}</error>\n    </testcase>\n",
        escaped(place),
        escaped(message)
    );
    document(1, 0, 1, 0.0, &case)
}

fn document(tests: usize, failures: usize, errors: usize, seconds: f64, cases: &str) -> String {
    let counts = format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" time=\"{seconds:.3}\"");
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {counts}>\n  <testsuite name=\"onefold\" {counts}>\n{cases}  \
         </testsuite>\n</testsuites>\n"
    )
}

/// Text as it may stand between tags and in attributes. What XML 1.0 cannot hold at all becomes U+FFFD.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            // Readers make spaces of these in attributes, and one line feed of both in text.
            '\n' => out.push_str("&#10;"),
            '\r' => out.push_str("&#13;"),
            '\t' => out.push_str("&#9;"),
            '\0'..'\u{20}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_message_breaks_the_document() {
        assert_eq!(escaped("a<b> & \"c\"\u{1b}[0m\n'"), "a&lt;b&gt; &amp; &quot;c&quot;\u{fffd}[0m&#10;&apos;");
        let text = broken("shop", "1 < 2 ]]> & so on");
        assert!(text.contains("message=\"1 &lt; 2 ]]&gt; &amp; so on\""), "{text}");
    }
}
