use super::*;

#[test]
fn auth_and_keys_file_must_match() {
    let error = |pairs: &[(&str, &str)]| {
        KeysConfig::from_vars(&Vars::from_pairs(pairs.iter().copied())).unwrap_err().to_string()
    };
    assert!(error(&[("AUTH", "required")]).contains("it needs KEYS_FILE"));
    assert!(error(&[("AUTH", "maybe")]).contains("`none`, `optional` or `required`"));
    assert!(error(&[("KEYS_FILE", "/nowhere/keys.toml")]).contains("KEYS_FILE"));
    assert_eq!(KeysConfig::from_vars(&Vars::from_pairs([("AUTH", "none")])).unwrap().mode, AuthMode::None);
}
