//! The databases of tenants. An analyst of a tenant sees only the rows of this tenant, even in the errors that a query
//! provokes.

use std::collections::BTreeSet;
use std::time::Duration;

use devstack::clickhouse::LOCAL_PASSWORD;
use devstack::wait_for;
use schemas::access::{self, DatabaseScope, Tenants, sql};
use schemas::bi::{self, Databases, Definers};
use schemas::rollup::Rollups;

use crate::oracle::{Oracle, TestEvent, now};
use crate::world::{ADDED_ROLLUP_TOML, DEADLINE, STATIC_MEMBER, World};

/// The SHA-256 of [`PASSWORD`], the password of the ClickHouse user of each tenant's analysts.
const HASH: &str = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8";
const PASSWORD: &str = "password";

/// Makes `migrate` create databases of tenants although the local ClickHouse library is older than the versions that
/// isolate tenants from each other.
const OLD_SERVER: (&str, &str) = ("BI_ALLOW_OLD_SERVER", "1");

/// The text of a `TENANTS_FILE` that declares these tenants.
fn file(names: &[&str]) -> String {
    let tenant = |name: &&str| format!("[[tenant]]\nname = \"{name}\"\npassword_sha256 = \"{HASH}\"\n");
    names.iter().map(tenant).collect()
}

fn tenants(names: &[&str]) -> Tenants {
    Tenants::parse(&file(names)).unwrap()
}

/// Runs `migrate` with a file that declares these tenants.
async fn migrate(world: &World, names: &[&str], more: &[(&str, &str)]) -> Result<(), String> {
    let file = world.write(&format!("tenants_{}.toml", names.join("_")), &file(names));
    let variables = [&[("TENANTS_FILE", file.as_str())], more].concat();
    world.run("stream-agg", &["migrate"], &variables).await.map_err(|error| format!("{error:#}"))
}

/// The answer or the error that the ClickHouse user of `tenant`'s analysts gets.
async fn ask(world: &World, tenant: &str, sql: &str) -> Result<String, String> {
    let (reader, database) = (format!("bi_reader_{tenant}"), database(world, tenant));
    world.ask_as((&reader, PASSWORD), &database, sql).await
}

/// All databases whose names have the prefix of the databases of tenants.
async fn databases(world: &World) -> Vec<Vec<String>> {
    let all = world.bi_database();
    let sql = format!("SELECT name FROM system.databases WHERE startsWith(name, '{all}_') ORDER BY name");
    world.rows(&sql).await
}

fn database(world: &World, tenant: &str) -> String {
    format!("{}_{tenant}", world.bi_database())
}

/// Inserts rows of `tenant` for every view of a tenant except `freshness`. Each row has the text `7` if the tenant is
/// `acme`, and otherwise the text `secret`. ClickHouse can convert `7` to a number, but not `secret`.
async fn insert_rows(world: &World, tenant: &str) {
    let text = if tenant == "acme" { "7" } else { "secret" };
    let state = "arrayReduce('uniqExactState', [toUInt64(1)])";
    let rows = [
        format!(
            "events (tenant, event, client_time, server_time, user_id, param_str, country) \
             SELECT '{tenant}', '{text}', now(), now(), '{text}', '{text}', '{text}'"
        ),
        format!(
            "dead_letters (tenant, reason, kp, ko, line, text, kafka_time) \
             VALUES ('{tenant}', 'bad_json', 0, 1, 1, '{text}', now64(3)), \
             ('{tenant}', 'edge:bad_type:event', 0, 1, 2, '{text}', now64(3))"
        ),
    ];
    for row in rows {
        world.rows(&format!("INSERT INTO {row}")).await;
    }
    for rollup in Rollups::built_in().iter() {
        let states = if rollup.table().name() == "rollup_states" {
            (", uniq1", format!(", {state}"))
        } else {
            ("", String::new())
        };
        world
            .rows(&format!(
                "INSERT INTO {} (tenant, rollup, bucket, dim1, dim2, dim3, expires, rows{}) SELECT '{tenant}', '{}', \
                 if('{}' = 'poll_votes', 0, toStartOfDay(now('UTC'))), 'click', '{text}', '{text}', '2149-06-06', 1{}",
                rollup.table().name(),
                states.0,
                rollup.name,
                rollup.name,
                states.1
            ))
            .await;
    }
}

/// Settings that change where ClickHouse evaluates a filter, or which errors occur. The queries set them in a subquery,
/// because the local ClickHouse library does not check there whether the user may change settings.
const SETTINGS: [&str; 8] = [
    "max_threads = 1",
    "optimize_move_to_prewhere = 0",
    "query_plan_enable_optimizations = 0",
    "query_plan_filter_push_down = 0",
    "enable_optimize_predicate_expression = 0",
    "short_circuit_function_evaluation = 'disable'",
    "optimize_read_in_order = 0",
    "compile_expressions = 0",
];

#[tokio::test]
async fn a_tenant_sees_only_its_own_rows_even_through_errors_of_queries() {
    let names = ["acme", "my-shop"];
    let (_stack, world) =
        World::on_own_servers_with_tenants("tenants", &Rollups::built_in(), &tenants(&names)).await;
    migrate(&world, &names, &[OLD_SERVER]).await.unwrap();
    for tenant in ["acme", "my-shop", "other"] {
        insert_rows(&world, tenant).await;
    }
    let all = format!("SELECT uniqExact(tenant) FROM {}.country_totals", world.bi_database());
    wait_for("a refresh of the totals", DEADLINE, async || {
        let read = format!("SELECT count() FROM {}.events_recent", world.bi_database());
        world.number(&read).await == 3 && world.number(&all).await == 3
    })
    .await
    .unwrap();

    let views = ask(&world, "acme", "SHOW TABLES").await.unwrap();
    assert!(views.contains("event_hourly") && !views.contains("pipeline_health"), "{views}");
    let mut settings = SETTINGS.into_iter().cycle();
    for view in views.lines().filter(|view| *view != "freshness") {
        let seen = format!("SELECT DISTINCT tenant FROM `{view}`");
        let own = ask(&world, "acme", &seen).await.unwrap();
        assert_eq!(own, "acme", "{view}");
        let texts = format!(
            "SELECT name FROM system.columns WHERE database = '{}' AND table = '{view}' AND type = 'String' AND name != 'tenant'",
            database(&world, "acme")
        );
        let texts = ask(&world, "acme", &texts).await.unwrap();
        let mut conditions = vec![
            "throwIf(tenant != 'acme') = 0".to_owned(),
            "intDiv(1, toUInt8(tenant = 'acme')) = 1".to_owned(),
            "toUInt64(if(tenant = 'acme', '1', tenant)) = 1".to_owned(),
        ];
        // The conditions below cause no error for the texts of `acme`. If ClickHouse evaluated them for a row of
        // another tenant, the text `secret` of that row would cause an error.
        conditions.extend(texts.lines().map(|text| {
            format!("`{text}` NOT LIKE '%-x' AND toUInt64(if(`{text}` = 'secret', `{text}`, '1')) = 1")
        }));
        for condition in &conditions {
            let plain = format!("SELECT count() FROM `{view}` WHERE {condition}");
            let own = ask(&world, "acme", &plain).await.unwrap_or_else(|error| panic!("{plain}: {error}"));
            // The view of raw rows is queried with each of the settings. To stay within the quota of 600 queries a
            // minute, each condition on another view is tried with only one setting, the next one in turn.
            let next = settings.by_ref().take(if view == "events_recent" { SETTINGS.len() } else { 1 });
            for setting in next.collect::<Vec<_>>() {
                let set = format!("SELECT * FROM ({plain} SETTINGS {setting})");
                assert_eq!(ask(&world, "acme", &set).await.as_ref(), Ok(&own), "{set}");
            }
        }
    }
    let number =
        "SELECT count() FROM events_recent WHERE param_str NOT LIKE '%-x' AND toUInt64(param_str) > 0";
    assert_eq!(ask(&world, "acme", number).await.as_deref(), Ok("1"));
    let theirs = ask(&world, "my-shop", number).await.unwrap_err();
    assert!(theirs.contains("secret"), "the error must show the text: {theirs}");
    assert_reaches_nothing_else(&world).await;
}

async fn assert_reaches_nothing_else(world: &World) {
    let (bi, other, tables) = (world.bi_database(), database(world, "my-shop"), world.name());
    for table in
        [format!("{tables}.events"), format!("{bi}.events_recent"), format!("`{other}`.events_recent")]
    {
        let error = ask(world, "acme", &format!("SELECT count() FROM {table}")).await.unwrap_err();
        assert!(error.contains("Code: 497"), "{error}");
    }
    for listed in [
        format!("SELECT count() FROM system.tables WHERE database IN ('{bi}', '{other}', '{tables}')"),
        format!("SELECT count() FROM system.columns WHERE database IN ('{bi}', '{other}', '{tables}')"),
        format!("SELECT count() FROM system.databases WHERE name IN ('{bi}', '{other}', '{tables}')"),
    ] {
        assert_eq!(ask(world, "acme", &listed).await.as_deref(), Ok("0"), "{listed}");
    }
    let error = world.ask_as(("bi_reader_acme", "guess"), &bi, "SELECT 1").await.unwrap_err();
    assert!(error.contains("Code: 516"), "{error}");
    for statement in ["SHOW GRANTS FOR bi_owner_acme", "SELECT * FROM system.row_policies", "DROP VIEW polls"]
    {
        let error = ask(world, "acme", statement).await.unwrap_err();
        assert!(error.contains("Code: 497") || error.contains("Code: 164"), "{statement}: {error}");
    }
}

#[tokio::test]
async fn a_removed_tenant_loses_its_database_and_login_and_all_tenants_get_new_rollups() {
    let rollups = Rollups::parse("tenants", &format!("{}{ADDED_ROLLUP_TOML}", Rollups::built_in())).unwrap();
    let (mut stack, world) =
        World::on_own_servers_with_tenants("tenants_gone", &rollups, &tenants(&["acme", "shop"])).await;
    migrate(&world, &["acme", "shop"], &[OLD_SERVER]).await.unwrap();
    let count = "SELECT count() FROM events_of_late";
    let error = ask(&world, "acme", count).await.unwrap_err();
    assert!(error.contains("Code: 60"), "a rollup must have no view before it is declared: {error}");

    let declared = world.write("rollups.toml", &rollups.to_string());
    let declared = ("ROLLUPS_FILE", declared.as_str());
    migrate(&world, &["acme", "shop"], &[OLD_SERVER, declared]).await.unwrap();
    for tenant in ["acme", "shop"] {
        assert_eq!(ask(&world, tenant, count).await.as_deref(), Ok("0"));
    }
    // This database has the name that a database for the tenant `theirs` would have, but `migrate` did not create it.
    world.rows(&format!("CREATE DATABASE {}_theirs", world.bi_database())).await;
    let refused = migrate(&world, &["acme", "shop", "theirs"], &[OLD_SERVER, declared]).await.unwrap_err();
    assert!(refused.contains("_theirs`") && refused.contains("did not create it"), "{refused}");

    migrate(&world, &["acme"], &[OLD_SERVER, declared]).await.unwrap();
    assert_eq!(ask(&world, "acme", count).await.as_deref(), Ok("0"));
    let error = ask(&world, "shop", count).await.unwrap_err();
    assert!(
        error.contains("Code: 81") || error.contains("Code: 60") || error.contains("Code: 497"),
        "{error}"
    );
    let expected = ["acme", "theirs"].map(|name| vec![database(&world, name)]);
    assert_eq!(databases(&world).await, expected);

    // The ClickHouse library reads its users only at start, so it needs a restart to lose the users of `shop`.
    let on = Databases { tables: world.name(), views: &world.bi_database() };
    let users = access::of_views(&rollups, on, Definers::DEFAULT, &tenants(&["acme"]));
    stack.clickhouse.stop().await.unwrap();
    stack.clickhouse.declare_users(&users).unwrap();
    stack.clickhouse.start().await.unwrap();
    let error = world.ask_as(("bi_reader_shop", PASSWORD), "default", "SELECT 1").await.unwrap_err();
    assert!(error.contains("Code: 516"), "{error}");
    assert_eq!(ask(&world, "acme", count).await.as_deref(), Ok("0"));

    // Without a `TENANTS_FILE`, `migrate` removes the databases of all tenants. If an administrator created a table in
    // such a database, `migrate` keeps the database with this table.
    let kept = format!("{}.kept", database(&world, "acme"));
    world.rows(&format!("CREATE TABLE {kept} (x UInt8) ENGINE = MergeTree ORDER BY x")).await;
    world.migrate_with(&[declared]).await;
    let left = format!("SELECT name FROM system.tables WHERE database = '{}'", database(&world, "acme"));
    assert_eq!(world.rows(&left).await, [["kept"]]);
    world.rows(&format!("DROP TABLE {kept} SYNC")).await;
    world.migrate_with(&[declared]).await;
    assert_eq!(databases(&world).await, [[database(&world, "theirs")]]);
}

#[tokio::test]
async fn a_migration_after_two_concurrent_ones_leaves_exactly_the_databases_of_its_file() {
    let rollups = Rollups::built_in();
    let (_stack, world) =
        World::on_own_servers_with_tenants("tenants_twice", &rollups, &tenants(&["acme", "shop"])).await;
    for last in [&["acme"][..], &["shop"], &["acme", "shop"], &[]] {
        // The migration without `shop` may remove the database of `shop` while the other migration creates it. If a
        // migration fails because of this, its error must name the database.
        let (one, other) = tokio::join!(
            migrate(&world, &["acme", "shop"], &[OLD_SERVER]),
            migrate(&world, &["acme"], &[OLD_SERVER])
        );
        for error in [one, other].into_iter().filter_map(Result::err) {
            assert!(error.contains("_shop"), "{error}");
        }
        migrate(&world, last, &[OLD_SERVER]).await.unwrap();
        let expected: Vec<_> = last.iter().map(|tenant| vec![database(&world, tenant)]).collect();
        assert_eq!(databases(&world).await, expected);
        for tenant in last {
            assert_eq!(ask(&world, tenant, "SELECT count() FROM event_daily").await.as_deref(), Ok("0"));
        }
    }
}

#[tokio::test]
async fn tenants_are_refused_on_servers_that_would_not_isolate_them() {
    let (_stack, world) = World::on_own_servers("tenants_refused").await;
    let refused = migrate(&world, &["acme"], &[]).await.unwrap_err();
    for part in [
        "ClickHouse 26.7.2.1",
        "26.6.5.113, 26.7.7.84, 26.8.3.74",
        "116028 and 118063",
        "BI_ALLOW_OLD_SERVER=1",
    ] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    let refused = migrate(&world, &["acme"], &[OLD_SERVER]).await.unwrap_err();
    assert!(refused.contains("takes its users from a file"), "{refused}");
    let views = format!("SELECT count() FROM system.tables WHERE database = '{}'", database(&world, "acme"));
    assert_eq!(world.number(&views).await, 0, "`migrate` failed but created views");
}

#[tokio::test]
async fn no_views_are_created_for_a_definer_without_its_row_policy() {
    let names = ["acme"];
    let on = Databases { tables: "tenants_bare", views: "bi_tenants_bare" };
    let users = access::of_views(&Rollups::built_in(), on, Definers::DEFAULT, &tenants(&names));
    for condition in ["1", "tenant != ''"] {
        let users = users.iter().cloned().map(|user| match user.name.as_str() {
            "bi_owner_acme" => user.limited_to(on.tables, condition),
            _ => user,
        });
        let (_stack, world) = World::on_own_servers_with_users("tenants_bare", users.collect()).await;
        let refused = migrate(&world, &names, &[OLD_SERVER]).await.unwrap_err();
        assert!(refused.contains("they could show rows of other tenants"), "{refused}");
        let views =
            format!("SELECT count() FROM system.tables WHERE database = '{}'", database(&world, "acme"));
        assert_eq!(world.number(&views).await, 0, "`migrate` failed but created views");
    }
}

#[tokio::test]
async fn clickhouse_parses_every_statement_and_the_users_file_sets_the_same_limits() {
    let world = World::new("tenants_statements").await;
    let on = Databases { tables: "millrace", views: "bi" };
    let users =
        access::of_deployment(&Rollups::built_in(), on, Definers::DEFAULT, &tenants(&["acme", "my-shop"]));
    let statements = sql::statements(&users);
    for statement in &statements {
        let quoted = statement.replace('\\', "\\\\").replace('\'', "\\'");
        let printed = world
            .rows(&format!("SELECT formatQuerySingleLine('{quoted}') FORMAT TSVRaw"))
            .await
            .concat()
            .concat();
        // `migrate` compares the condition of a row policy with the text that ClickHouse stores for it. So ClickHouse
        // must format the condition exactly as the statement has it.
        if let Some((_, rest)) = statement.split_once(" USING ") {
            let condition = rest.split_once(" AS ").unwrap().0;
            assert!(printed.contains(&format!(" USING {condition} ")), "{printed}");
        }
    }
    let printed = statements.iter().find_map(|one| one.strip_prefix("ALTER SETTINGS PROFILE bi SETTINGS "));
    let loaded = world.rows("SHOW CREATE SETTINGS PROFILE bi").await.concat().concat();
    let loaded = loaded.split_once("` SETTINGS ").unwrap().1.to_owned();
    let parts = |text: &str| -> BTreeSet<String> {
        // For a setting of 30 seconds, ClickHouse shows `30.`, so the full stops are removed from both texts.
        text.split(", ").map(|setting| setting.replace('.', "")).collect()
    };
    assert_eq!(parts(printed.unwrap()), parts(&loaded));
}

/// The variables with which a service logs in to ClickHouse as `user`.
fn login(user: &str) -> [(&str, &str); 2] {
    [("CLICKHOUSE_USER", user), ("CLICKHOUSE_PASSWORD", LOCAL_PASSWORD)]
}

#[tokio::test]
async fn row_policies_of_tenants_hide_no_rows_from_the_services() {
    let names = ["acme", "default"];
    let (_stack, world) =
        World::on_own_servers_with_tenants("tenants_counted", &Rollups::built_in(), &tenants(&names)).await;
    migrate(&world, &names, &[&[OLD_SERVER][..], &login("migrator")].concat()).await.unwrap();
    let edge = world.edge().await;
    let variables = [&[STATIC_MEMBER][..], &login("loader")].concat();
    let mut aggregator = world.start("stream-agg", &variables);
    let mut api = world.start("query-api", &login("poller"));
    aggregator.wait_ready().await.unwrap();
    api.wait_ready().await.unwrap();
    let mut oracle = Oracle::default();
    let mut rng = fastrand::Rng::with_seed(13);
    let mut sent = 0;
    for _ in 0..4 {
        let lines: Vec<_> = (0..40).map(|_| Some(TestEvent::random(&mut rng, now()))).collect();
        let text: Vec<_> = lines.iter().flatten().map(TestEvent::line).collect();
        oracle.record_report(&edge.http.post_lines(&text).await, &lines);
        sent += text.len();
        // After the kill, the restarted aggregator may have to rebuild a declared batch. For this, it reads the
        // markers, which the row policies must not hide.
        aggregator.kill9();
        aggregator.restart().unwrap();
    }
    world.assert_counted(&oracle.counts()).await;
    let seen = ask(&world, "default", "SELECT sum(events) FROM event_hourly").await.unwrap();
    assert_eq!(seen, sent.to_string());
    assert_eq!(ask(&world, "acme", "SELECT count() FROM event_hourly").await.as_deref(), Ok("0"));
    assert_eq!(ask(&world, "acme", "SELECT count() FROM events_recent").await.as_deref(), Ok("0"));
}

#[tokio::test]
async fn a_service_that_row_policies_hide_rows_from_reports_it_and_stores_nothing() {
    let name = "tenants_hidden";
    let scope = DatabaseScope::only(Databases { tables: name, views: "bi_tenants_hidden" });
    let blind = access::services(&scope).map(|mut user| {
        user.name = format!("blind_{}", user.name);
        user.limited_to(name, "0")
    });
    let definers = bi::definers(
        &Rollups::built_in(),
        Databases { tables: name, views: "bi_tenants_hidden" },
        Definers::DEFAULT,
    );
    let users = blind.into_iter().chain(definers.into_iter().map(access::User::from)).collect();
    let (_stack, world) = World::on_own_servers_with_users(name, users).await;
    let remedy = "users_without_row_policies_can_read_rows";
    let noted = format!("SELECT sum(rows) FROM system.parts WHERE active AND database = '{name}'");
    let mut rows = Vec::new();
    for _ in 0..2 {
        let refused = world.run("stream-agg", &["migrate"], &login("blind_migrator")).await.unwrap_err();
        assert!(format!("{refused:#}").contains(remedy), "{refused:#}");
        rows.push(world.number(&noted).await);
    }
    assert!(
        rows[0] > 0 && rows[0] == rows[1],
        "the first migration must insert rows, and the second one must add none: {rows:?} rows"
    );
    for (service, user) in [("stream-agg", "blind_loader"), ("query-api", "blind_poller")] {
        let mut blind = world.start(service, &login(user));
        let log = async || blind.process().log_tail().contains(remedy);
        wait_for("the reason in the log", Duration::from_secs(60), log).await.unwrap();
        let ready = e2e::client::Http::new(blind.admin()).get("/readyz").await;
        assert_eq!(ready.status, 503, "{service}");
    }
}
