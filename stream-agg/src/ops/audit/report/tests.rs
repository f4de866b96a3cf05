use super::*;
use crate::ops::audit::gaps::Offsets;

const GAP: Gap = Gap { log_generation: 0, partition: 3, first: 5, last: 7 };

fn audit(missing: u64, duplicate: u64, gaps: &[Gap]) -> Audit {
    let events = Audited {
        table: "events".to_owned(),
        expected: 60,
        found: 60,
        missing,
        duplicate,
        note: String::new(),
    };
    let found = 60 - gaps.iter().map(|gap| gap.last + 1 - gap.first).sum::<u64>();
    let offsets = Offsets { expected: 60, found, gaps: gaps.to_vec() };
    Audit { at: 1000, tables: vec![events], findings: Vec::new(), offsets }
}

/// Checks that the last line of the audit's report is `verdict`, and that the audit is sound if and only if `verdict`
/// says so.
#[track_caller]
fn check(audit: &Audit, verdict: &str) {
    assert_eq!(audit.to_string().lines().last(), Some(verdict));
    assert_eq!(audit.is_sound(), verdict.contains(" sound,"));
}

#[test]
fn an_audit_without_missing_duplicates_or_gaps_is_sound() {
    check(&audit(0, 0, &[]), "audit: sound, missing=0 duplicate=0 gaps=0");
    check(&audit(1, 0, &[]), "audit: wrong, missing=1 duplicate=0 gaps=0");
    check(&audit(0, 2, &[]), "audit: wrong, missing=0 duplicate=2 gaps=0");
    check(&audit(0, 2, &[GAP]), "audit: wrong, missing=0 duplicate=2 gaps=3");
}

#[test]
fn a_gap_is_reported_with_how_to_find_its_cause() {
    check(&audit(0, 0, &[GAP]), "audit: incomplete, missing=0 duplicate=0 gaps=3");
    let text = audit(0, 0, &[GAP]).to_string();
    assert!(text.contains("\noffsets 5-7 of partition 3: in no ledger row\nRead the log"), "{text}");
    assert!(!audit(0, 0, &[]).to_string().contains("Read the log"));
}

#[test]
fn gaps_are_stored_besides_the_counts_of_tables() {
    let sql = insert(&audit(0, 0, &[GAP]));
    let rows = "('1970-01-01 00:00:01.000', 'events', 'all', 60, 60, 0, 0, ''), \
                ('1970-01-01 00:00:01.000', 'ledger', 'offsets', 60, 57, 0, 0, ''), \
                ('1970-01-01 00:00:01.000', 'ledger', 'offsets 5-7 of partition 3', 3, 0, 0, 0, 'in no ledger row')";
    assert!(sql.ends_with(rows), "{sql}");
}
