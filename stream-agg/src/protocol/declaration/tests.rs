use super::*;

/// A declaration as the first releases stored it, and the hash that they computed for it.
const FIRST_TEXT: &str = include_str!("first.json").trim_ascii_end();
const FIRST_CFG: u64 = 0x1650_77cc_b992_2d66;

#[test]
fn a_stored_declaration_is_read_back_with_the_same_hash() {
    let was = Declaration::built_in();
    let limits = DecodeLimits { spooled_days: 7, dead_letter_bytes: 100, ..was.limits };
    let place_key = u64::MAX;
    for declaration in [Declaration { limits, max_groups: 7, place_key, ..was.clone() }, was] {
        let read = Declaration::parse(&declaration.text()).unwrap();
        assert_eq!((read.hash(), &read), (declaration.hash(), &declaration));
    }
}

/// This release can finish a batch that one of the first releases declared.
#[test]
fn declarations_of_the_first_releases_are_read_with_their_values_and_hash() {
    let read = Declaration::parse(FIRST_TEXT).unwrap();
    assert_eq!(format!("{:016x}", read.hash()), format!("{FIRST_CFG:016x}"));
    assert_eq!(read.text(), FIRST_TEXT, "the first releases can read what this release stores");
    let DecodeLimits { time, window, version, spooled_days, dead_letter_bytes } = read.limits;
    assert_eq!((time.earliest, time.ahead), (UnixMillis(1_262_304_000_000), 3_600_000));
    assert_eq!((window.age_ms, window.max_ids, version), (600_000, 1234, 1));
    assert_eq!((spooled_days, dead_letter_bytes, read.max_groups), (14, 4096, 50_000));
    assert_eq!(read.rollups.iter().count(), 2);
    // The same declaration with an explicit limit, as some releases stored it.
    let explicit = FIRST_TEXT.replacen(r#""rollups""#, r#""max_groups":50000,"rollups""#, 1);
    assert_eq!(Declaration::parse(&explicit), Ok(read));
}

#[test]
fn the_hash_of_a_declaration_with_default_settings_never_changes() {
    let rollups = Declaration::parse(FIRST_TEXT).unwrap().rollups;
    let built_in = Declaration::built_in();
    let plain = Declaration { rollups, limits: DecodeLimits { version: 1, ..built_in.limits }, ..built_in };
    assert_eq!(format!("{:016x}", plain.hash()), "8debe0ebe36fcd7b");
}

#[test]
fn every_value_that_changes_rows_changes_the_hash() {
    let was = Declaration::built_in();
    let DecodeLimits { time, window, .. } = was.limits;
    let with = |limits| Declaration { limits, ..was.clone() };
    let rollups = Rollups::parse(
        "test",
        "[[rollup]]\nname = \"a\"\ngrain = \"day\"\ndimensions = []\nmeasures = { n = \"count\" }\n",
    );
    let all = [
        was.clone(),
        with(DecodeLimits { window: WindowLimits { max_ids: 7, ..window }, ..was.limits }),
        with(DecodeLimits { window: WindowLimits { age_ms: 7, ..window }, ..was.limits }),
        with(DecodeLimits { time: TimeLimits { ahead: 7, ..time }, ..was.limits }),
        with(DecodeLimits { time: TimeLimits { earliest: UnixMillis(7), ..time }, ..was.limits }),
        with(DecodeLimits { version: 7, ..was.limits }),
        with(DecodeLimits { spooled_days: 7, ..was.limits }),
        with(DecodeLimits { dead_letter_bytes: 7, ..was.limits }),
        Declaration { rollups: rollups.unwrap(), ..was.clone() },
        Declaration { max_groups: 7, ..was.clone() },
        Declaration { place_key: 7, ..was.clone() },
    ];
    let hashes: std::collections::BTreeSet<_> = all.iter().map(Declaration::hash).collect();
    assert_eq!(hashes.len(), all.len());
}

#[test]
fn this_release_reads_its_decode_version_and_the_previous_one() {
    assert_eq!(*READABLE_VERSIONS.end(), DECODE_VERSION);
    assert!(READABLE_VERSIONS.contains(&DECODE_VERSION.saturating_sub(1).max(1)));
    assert!(
        *READABLE_VERSIONS.start() >= 1 && READABLE_VERSIONS.count() <= 2,
        "only the current and the previous decode version may be readable"
    );
}

/// Reads declarations of versions 1 and 2, as a release whose decode version is 2 does.
#[test]
fn a_declaration_of_the_previous_version_keeps_its_version_and_hash() {
    let readable = 1..=2;
    let of = |version: u32| {
        FIRST_TEXT.replacen("\"decode_version\":1", &format!("\"decode_version\":{version}"), 1)
    };
    let before = Declaration::parse_version(&of(1), readable.clone()).unwrap();
    assert_eq!((before.limits.version, before.hash()), (1, FIRST_CFG));
    assert_eq!(before.text(), FIRST_TEXT);
    let own = Declaration::parse_version(&of(2), readable.clone()).unwrap();
    assert_eq!(own.limits.version, 2);
    assert_ne!(own.hash(), FIRST_CFG);
    for version in [0, 3] {
        let refused = Declaration::parse_version(&of(version), readable.clone());
        assert_eq!(refused, Err(DeclarationError::Version(version)));
    }
}

#[test]
fn a_declaration_with_an_unknown_version_or_field_is_refused() {
    let text = Declaration::built_in().text();
    let version = |version: u32| format!("\"decode_version\":{version}");
    let later = text.replacen(&version(DECODE_VERSION), &version(DECODE_VERSION + 1), 1);
    assert_eq!(Declaration::parse(&later), Err(DeclarationError::Version(DECODE_VERSION + 1)));
    let unknown = text.replacen('{', "{\"new\":1,", 1);
    assert!(matches!(Declaration::parse(&unknown), Err(DeclarationError::Format(_))));
}

#[test]
fn a_stored_declaration_is_used_only_if_it_has_the_requested_hash() {
    let declared = Declaration::built_in();
    let declaration_hash = declared.hash();
    let other = Declaration { max_groups: 7, ..declared.clone() };
    let later =
        Declaration { limits: DecodeLimits { version: 9, ..declared.limits }, ..declared.clone() }.text();
    let check = |texts: &[&str], expected: Result<&Declaration, UnknownDeclaration>| {
        let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(known(declaration_hash, &texts), expected.cloned());
    };
    let changed = UnknownDeclaration::Changed { declaration_hash, found: other.hash() };
    let unreadable =
        UnknownDeclaration::Unreadable { declaration_hash, source: DeclarationError::Version(9) };
    check(&[], Err(UnknownDeclaration::Missing { declaration_hash }));
    check(&[&declared.text()], Ok(&declared));
    check(&[&other.text()], Err(changed.clone()));
    check(&[&later], Err(unreadable));
    check(&[&other.text(), &later], Err(changed));
    check(&[&other.text(), &declared.text()], Ok(&declared));
}

#[test]
fn a_stored_declaration_with_a_changed_limit_is_refused() {
    let declared = Declaration::built_in();
    let limits = DecodeLimits { dead_letter_bytes: 7, ..declared.limits };
    let changed = Declaration { limits, ..declared.clone() };
    let found = changed.hash();
    assert_eq!(
        known(declared.hash(), &[changed.text()]),
        Err(UnknownDeclaration::Changed { declaration_hash: declared.hash(), found })
    );
}
