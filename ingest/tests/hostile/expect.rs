//! Compares the response of the edge with what a case expects.

use serde_json::{Value, json};

use super::corpus::{Case, Expected, Line};

/// Maximum number of errors that a report lists.
const LISTED: usize = 20;

/// The lines of a case that must be stored, as they were sent.
pub(crate) fn accepted(case: &Case) -> impl Iterator<Item = &String> {
    let lines = match &case.expected {
        Expected::Lines(lines) => lines.as_slice(),
        Expected::Refused(..) => &[],
    };
    lines.iter().filter_map(|line| line.verdict.as_ref().ok())
}

/// Checks the response to a case; `how` says how its body was sent.
#[track_caller]
pub(crate) fn assert_answer(case: &Case, how: &str, status: u16, answer: &Value) {
    let place = format!("{}, sent {how}", case.name);
    let code = answer["code"].as_str();
    match &case.expected {
        Expected::Refused(expected, name) => {
            assert_eq!((status, code), (*expected, Some(*name)), "{place}: {answer}");
        }
        Expected::Lines(lines) => {
            let good = accepted(case).count();
            let bad: Vec<_> = lines.iter().filter_map(expected_error).collect();
            if good == 0 {
                assert_eq!((status, code), (400, Some("all_lines_invalid")), "{place}: {answer}");
            } else {
                assert_eq!(status, 200, "{place}: {answer}");
                let sums = ["received", "accepted", "rejected"].map(|sum| answer[sum].as_u64().unwrap());
                assert_eq!(sums, [lines.len(), good, bad.len()].map(|sum| sum as u64), "{place}: {answer}");
            }
            let listed = bad.len().min(LISTED);
            assert_eq!(answer["errors"], json!(bad[..listed]), "{place}");
            assert_eq!(answer["errors_truncated"] == true, listed < bad.len(), "{place}");
        }
    }
}

/// The error that a report must list for a line, if the line is invalid.
fn expected_error(line: &Line) -> Option<Value> {
    let mut expected = json!({"line": line.number});
    let (code, field) = line.verdict.as_ref().err()?;
    expected["code"] = json!(code);
    if let Some(field) = field {
        expected["field"] = json!(field);
    }
    Some(expected)
}
