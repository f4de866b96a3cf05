use rcgen::{CertifiedKey, generate_simple_self_signed};

use super::*;

/// Makes a self-signed certificate and its key, each as PEM.
fn made() -> (String, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (cert.pem(), signing_key.serialize_pem())
}

#[track_caller]
fn check(certificate: &str, key: &str, expected: BadFile) {
    let pair = Pair { certificate: certificate.to_owned(), key: key.to_owned() };
    assert_eq!(pair.server_config().map(|_| ()), Err(expected));
}

#[test]
fn the_error_about_a_bad_pair_names_the_bad_file() {
    let ((certificate, key), (_, other_key)) = (made(), made());
    let in_certificate = |reason: &str| BadFile::Certificate(reason.to_owned());
    let in_key = |reason: &str| BadFile::Key(reason.to_owned());
    check(&certificate, &other_key, in_key("it does not belong to the certificate"));
    check("", &key, in_certificate("there is no certificate in it"));
    check(&key, &key, in_certificate("there is no certificate in it"));
    check(
        &certificate,
        &certificate,
        in_key("it has no unencrypted private key; encrypted keys are not supported"),
    );
    check(&certificate, "-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----", in_key("it is not PEM"));
    let unusable = in_key("it cannot be used; RSA, ECDSA and Ed25519 are supported");
    check(&certificate, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", unusable);
    let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    check(cut, &key, in_certificate("it cannot be used: BadEncoding"));
}

#[test]
fn a_good_pair_is_used_and_a_bad_one_changes_only_the_metric() {
    let ((certificate, key), (other_certificate, other_key)) = (made(), made());
    let pair =
        |certificate: &str, key: &str| Pair { certificate: certificate.to_owned(), key: key.to_owned() };
    let files = Files { certificate: "tls.crt".into(), key: "tls.key".into() };
    let stale = IntGauge::new("stale", "stale").unwrap();
    let tls = Tls::new(TlsConfig { files, pair: pair(&certificate, &key) }, stale.clone());
    let first = tls.current.load_full();

    tls.reload(&Ok(pair(&other_certificate, &key)));
    assert!(Arc::ptr_eq(&first, &tls.current.load_full()) && stale.get() == 1);
    tls.reload(&Err(BadFile::Key("permission denied".to_owned())));
    assert!(Arc::ptr_eq(&first, &tls.current.load_full()) && stale.get() == 1);
    tls.reload(&Ok(pair(&other_certificate, &other_key)));
    assert!(!Arc::ptr_eq(&first, &tls.current.load_full()) && stale.get() == 0);
}

#[test]
fn a_certificate_without_its_key_is_refused_and_the_other_way_round() {
    let alone = |name| TlsConfig::from_vars(&Vars::from_pairs([(name, "Cargo.toml")])).map(|_| ());
    assert!(matches!(alone("TLS_CERT"), Err(VarError::Missing { name: "TLS_KEY", .. })));
    assert!(matches!(alone("TLS_KEY"), Err(VarError::Missing { name: "TLS_CERT", .. })));
    assert!(TlsConfig::from_vars(&Vars::from_pairs([("TLS_CERT", "")])).unwrap().is_none());
}

#[test]
fn a_printed_configuration_never_contains_a_private_key() {
    let (certificate, key) = made();
    let pair = Pair { certificate, key };
    let files = Files { certificate: "tls.crt".into(), key: "tls.key".into() };
    let debug = format!("{:?}", TlsConfig { files, pair });
    assert!(debug.contains("tls.key") && !debug.contains("BEGIN"), "{debug}");
}
