use super::*;

fn keys(text: &str) -> Keys {
    let file = Some(KeyFile { path: "unread".into(), text: text.to_owned() });
    Keys::new(&KeysConfig { mode: AuthMode::Required, file }, IntGauge::new("stale", "Stale.").unwrap())
}

fn declared(id: &str) -> String {
    keys::generate(id, "acme").1
}

#[test]
fn a_bad_file_keeps_the_keys_read_before_and_shows() {
    let keys = keys(&declared("a"));
    for bad in [Ok("[[key]]".to_owned()), Err("no such file".to_owned())] {
        keys.apply(&bad);
        assert_eq!((keys.current.load().len(), keys.stale.get()), (1, 1));
    }
    keys.apply(&Ok(declared("a") + &declared("b")));
    assert_eq!((keys.current.load().len(), keys.stale.get()), (2, 0));
}

#[test]
fn auth_and_the_file_must_fit_together() {
    let error = |pairs: &[(&str, &str)]| {
        KeysConfig::from_vars(&Vars::from_pairs(pairs.iter().copied())).unwrap_err().to_string()
    };
    assert!(error(&[("AUTH", "required")]).contains("it needs KEYS_FILE"));
    assert!(error(&[("AUTH", "maybe")]).contains("`none`, `optional` or `required`"));
    assert!(error(&[("KEYS_FILE", "/nowhere/keys.toml")]).contains("KEYS_FILE"));
    assert_eq!(KeysConfig::from_vars(&Vars::from_pairs([("AUTH", "none")])).unwrap().mode, AuthMode::None);
}
