//! Sign-in with an issuer's tokens: the whole way from an issuer on this machine to a call under a person's own role.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{encode, Algorithm, EncodingKey, Header};
use odin_tests::sidecar::{until, Sidecar, PATIENCE};
use odin_tests::{refusal, Farm};
use serde_json::{json, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const AUDIENCE: &str = "https://farm.example.org/mcp";

/// An issuer with an address of its own: its configuration, its keys, and how often somebody came for the keys.
struct Issuer {
    url: String,
    keys: Arc<Mutex<HashMap<String, u8>>>,
    fetched: Arc<AtomicUsize>,
}

/// An Ed25519 key in PKCS#8, out of one repeated byte.
fn key(seed: u8) -> EncodingKey {
    let mut der = vec![
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    der.extend([seed; 32]);
    EncodingKey::from_ed_der(&der)
}

impl Issuer {
    async fn start() -> Issuer {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let keys = Arc::new(Mutex::new(HashMap::from([("first".to_owned(), 1)])));
        let fetched = Arc::new(AtomicUsize::new(0));
        let (own, held, count) = (url.clone(), keys.clone(), fetched.clone());
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut asked = [0u8; 2048];
                let n = socket.read(&mut asked).await.unwrap_or(0);
                let asked = String::from_utf8_lossy(&asked[..n]).into_owned();
                let body = if asked.starts_with("GET /.well-known/openid-configuration ") {
                    json!({"issuer": own, "jwks_uri": format!("{own}/keys")})
                } else if asked.starts_with("GET /keys ") {
                    count.fetch_add(1, Ordering::SeqCst);
                    published(&held.lock().unwrap())
                } else {
                    json!({})
                };
                let body = body.to_string();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = socket.write_all((head + &body).as_bytes()).await;
            }
        });
        Issuer { url, keys, fetched }
    }

    fn token(&self, kid: &str, seed: u8, change: Value) -> String {
        let now = jsonwebtoken::get_current_timestamp();
        let mut claims = json!({"iss": self.url, "aud": AUDIENCE, "exp": now + 600, "sub": "ada", "scope": "openid agent:read agent:write"});
        for (name, value) in change.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(kid.to_owned());
        encode(&header, &claims, &key(seed)).unwrap()
    }
}

fn published(keys: &HashMap<String, u8>) -> Value {
    let keys = keys.iter().map(|(kid, seed)| {
        let mut jwk = Jwk::from_encoding_key(&key(*seed), Algorithm::EdDSA).unwrap();
        jwk.common.key_id = Some(kid.clone());
        jwk
    });
    json!(JwkSet {
        keys: keys.collect()
    })
}

struct Set {
    farm: Farm,
    issuer: Issuer,
    sidecar: Sidecar,
    ada: String,
}

/// A farm that trusts an issuer, whose ada is an operator here.
async fn set(settings: &[(&str, &str)]) -> Set {
    let farm = Farm::new().await;
    farm.tool("whoami", "", "read", "BEGIN RETURN current_user; END")
        .await;
    farm.tool("writes", "", "write", "BEGIN RETURN current_user; END")
        .await;
    let issuer = Issuer::start().await;
    let ada = farm.role("ada", "odin_operator").await;
    farm.sql(&format!(
        "SELECT odin.trust_issuer('{}', '{{{AUDIENCE}}}')",
        issuer.url
    ))
    .await;
    farm.sql(&format!("SELECT odin.allow_sign_in('{}', 'ada', '{ada}', '{{agent:read,agent:write}}', allowed_ips => '{{127.0.0.0/8}}')", issuer.url)).await;
    // The issuer is on this machine, which egress does not reach unasked.
    let reach = [
        ("ODIN_EGRESS_ALLOW", "127.0.0.1"),
        ("ODIN_EGRESS_PRIVATE", "127.0.0.0/8"),
    ];
    let sidecar = Sidecar::start(&farm, &[settings, &reach].concat()).await;
    Set {
        farm,
        issuer,
        sidecar,
        ada,
    }
}

impl Set {
    /// The tool's answer, or the refusal's detail.
    async fn call(&self, token: &str, tool: &str) -> (u16, String) {
        let client = self.sidecar.client().key(token);
        let reply = client
            .rpc("tools/call", json!({"name": tool, "arguments": {}}))
            .await;
        let said = reply.json();
        let text = said["result"]["structuredContent"]["result"]
            .as_str()
            .or(said["error"]["message"].as_str())
            .map(str::to_owned);
        let text = text.unwrap_or_else(|| reply.tool_error()["code"].to_string());
        (reply.status, text)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_signs_in_and_acts_as_his_own_role() {
    let set = set(&[]).await;
    let token = set.issuer.token("first", 1, json!({}));
    assert_eq!(set.call(&token, "whoami").await, (200, set.ada.clone()));
    assert_eq!(set.call(&token, "writes").await, (200, set.ada.clone()));
    // The same over REST, and under the name the farm knows him by.
    let me = set.sidecar.client().key(&token).get("/api/v1/me").await;
    let me = me.unwrap().json();
    assert_eq!(
        (&me["role"], &me["scopes"]),
        (&json!(set.ada), &json!(["agent:read", "agent:write"]))
    );
    // A new token is the same person: limits, tasks and trail go on under one key.
    let later = set.issuer.token("first", 1, json!({"jti": "2"}));
    assert_eq!(set.call(&later, "whoami").await.0, 200);
    let keys: i64 = set
        .farm
        .value("SELECT count(DISTINCT key_id) FROM odin.audit_calls WHERE tool = 'whoami'")
        .await;
    assert_eq!(keys, 1);
    // The keys were fetched once, and no token is kept anywhere.
    assert_eq!(set.issuer.fetched.load(Ordering::SeqCst), 1);
    let log = set.sidecar.log_text();
    assert!(!log.contains(&token) && !log.contains("eyJ"));
    set.farm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_grants_no_more_than_it_says_and_no_more_than_the_person_has() {
    let set = set(&[]).await;
    let reader = set
        .issuer
        .token("first", 1, json!({"scope": "openid agent:read"}));
    assert_eq!(set.call(&reader, "whoami").await.0, 200);
    assert_eq!(set.call(&reader, "writes").await.1, "\"scope_denied\"");
    let mighty = set.issuer.token("first", 1, json!({"scope": "admin"}));
    assert_eq!(set.call(&mighty, "writes").await, (200, set.ada.clone()));
    let scopes: Vec<String> = set
        .farm
        .value("SELECT scopes FROM odin_private.sign_ins ORDER BY expires_at DESC, scopes DESC LIMIT 1")
        .await;
    assert!(!scopes.contains(&"admin".to_owned()), "{scopes:?}");
    let nothing = set.issuer.token("first", 1, json!({"scope": "openid"}));
    let client = set.sidecar.client().key(&nothing);
    let refused = client.rpc("tools/list", json!({})).await;
    assert_eq!(refused.status, 403);
    assert!(refused
        .header("www-authenticate")
        .contains("insufficient_scope"));
    // The issuer's own words, mapped; a claim that is a path; a list.
    set.farm.sql(&format!("SELECT odin.trust_issuer('{}', '{{{AUDIENCE}}}', scope_claim => 'realm_access.roles', scope_map => '{{\"farm-reader\": [\"agent:read\"]}}')", set.issuer.url)).await;
    let mapped = set.issuer.token(
        "first",
        1,
        json!({"realm_access": {"roles": ["x", "farm-reader"]}}),
    );
    assert_eq!(set.call(&mapped, "whoami").await, (200, set.ada.clone()));
    assert_eq!(set.call(&mapped, "writes").await.1, "\"scope_denied\"");
    set.farm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_token_is_refused() {
    // Many wrong tokens from one address would be slowed down, which is another test's subject.
    let set = set(&[("ODIN_TRUSTED_PROXIES", "127.0.0.1")]).await;
    for (n, (token, why)) in [
        (
            set.issuer.token("first", 1, json!({"exp": 1000})),
            "the token has expired",
        ),
        (
            set.issuer.token("first", 1, json!({"aud": "another"})),
            "the token is for another audience",
        ),
        (
            set.issuer
                .token("first", 1, json!({"iss": "https://evil.example.org"})),
            "the token is of no issuer this farm trusts",
        ),
        (
            set.issuer.token("first", 2, json!({})),
            "the token's signature is wrong",
        ),
        (
            set.issuer.token("first", 1, json!({"sub": "eve"})),
            "eve may not sign in here",
        ),
        (
            set.issuer.token("first", 1, json!({"sub": null})),
            "nobody may not sign in here",
        ),
        (
            "eyJ.b.c".into(),
            "the token is of no issuer this farm trusts",
        ),
        (
            "eyJhbGciOiJub25lIn0.e30.".into(),
            "the token is of no issuer this farm trusts",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let from = format!("127.0.1.{n}");
        let client = set.sidecar.client().key(&token);
        let client = client.with("x-forwarded-for", &from);
        let reply = client.rpc("tools/list", json!({})).await;
        let status = if why.contains("sign in here") {
            403
        } else {
            401
        };
        assert_eq!(
            (reply.status, reply.json()["error"]["message"].as_str()),
            (status, Some(why))
        );
    }
    // A right token from a wrong address.
    let token = set.issuer.token("first", 1, json!({}));
    let client = set.sidecar.client().key(&token);
    let elsewhere = client.with("x-forwarded-for", "192.0.2.7");
    assert_eq!(elsewhere.rpc("tools/list", json!({})).await.status, 401);
    let here = client.with("x-forwarded-for", "127.0.0.9");
    assert_eq!(here.rpc("tools/list", json!({})).await.status, 200);
    set.farm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_and_strange_ones_do_not_hammer_the_issuer() {
    let set = set(&[("ODIN_TRUSTED_PROXIES", "127.0.0.1")]).await;
    let old = set.issuer.token("first", 1, json!({}));
    assert_eq!(set.call(&old, "whoami").await.0, 200);
    let rotate = HashMap::from([("second".to_owned(), 7)]);
    *set.issuer.keys.lock().unwrap() = rotate;
    // The last try is longer ago than a moment.
    set.farm
        .sql("UPDATE odin.issuer_keys SET tried_at = tried_at - interval '1 minute', ended_at = ended_at - interval '1 minute', wanted_at = wanted_at - interval '1 minute'")
        .await;
    let new = set.issuer.token("second", 7, json!({}));
    assert_eq!(set.call(&new, "whoami").await, (200, set.ada.clone()));
    assert_eq!(set.issuer.fetched.load(Ordering::SeqCst), 2);
    // Signed in before the key was withdrawn: good until it ends. Not so a token that comes now.
    assert_eq!(set.call(&old, "whoami").await.0, 200);
    for n in 0..5 {
        let late = set.issuer.token("first", 1, json!({"jti": n}));
        let client = set.sidecar.client().key(&late);
        let client = client.with("x-forwarded-for", &format!("127.0.2.{n}"));
        let reply = client.rpc("tools/list", json!({})).await;
        assert_eq!(reply.status, 401, "{}", reply.text());
    }
    assert_eq!(set.issuer.fetched.load(Ordering::SeqCst), 2);
    set.farm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_ends_at_once() {
    let set = set(&[]).await;
    let token = set.issuer.token("first", 1, json!({}));
    assert_eq!(set.call(&token, "whoami").await.0, 200);
    set.farm.sql("SELECT odin.revoke_key(id) FROM odin_private.keys WHERE subject = 'ada' AND revoked_at IS NULL").await;
    // The door may still know the token; the call itself is refused.
    assert_eq!(set.call(&token, "whoami").await.1, "\"not_authenticated\"");
    assert_eq!(set.call(&token, "whoami").await.0, 403);
    // Allowed again, and then the issuer is trusted no longer.
    set.farm
        .sql(&format!(
            "SELECT odin.allow_sign_in('{}', 'ada', '{}')",
            set.issuer.url, set.ada
        ))
        .await;
    assert_eq!(set.call(&token, "whoami").await.0, 200);
    set.farm
        .sql(&format!(
            "SELECT odin.distrust_issuer('{}')",
            set.issuer.url
        ))
        .await;
    until("it is over", PATIENCE, || async {
        set.call(&token, "whoami").await.0 == 401
    })
    .await;
    set.farm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_told_where_to_get_a_token() {
    let set = set(&[("ODIN_PUBLIC_URL", "https://farm.example.org/")]).await;
    let client = set.sidecar.client();
    for path in ["", "/mcp"] {
        let path = format!("/.well-known/oauth-protected-resource{path}");
        let about = client.get(&path).await.unwrap();
        assert_eq!(about.status, 200);
        let about = about.json();
        assert_eq!(about["resource"], AUDIENCE);
        assert_eq!(about["authorization_servers"], json!([set.issuer.url]));
        assert_eq!(
            about["scopes_supported"],
            json!(["agent:read", "agent:write"])
        );
    }
    let refused = client.rpc("tools/list", json!({})).await;
    assert_eq!(refused.status, 401);
    assert_eq!(
        refused.header("www-authenticate"),
        "Bearer realm=\"odin_farm\", resource_metadata=\"https://farm.example.org/.well-known/oauth-protected-resource/mcp\", scope=\"agent:read agent:write\""
    );
    let rest = client.get("/api/v1/me").await.unwrap();
    assert!(rest
        .header("www-authenticate")
        .contains("resource_metadata="));
    set.farm
        .sql(&format!(
            "SELECT odin.distrust_issuer('{}')",
            set.issuer.url
        ))
        .await;
    // Without an issuer everything is as if there were no such thing.
    until("the metadata is gone", PATIENCE, || async {
        let path = "/.well-known/oauth-protected-resource/mcp";
        client.get(path).await.is_some_and(|r| r.status == 404)
    })
    .await;
    let refused = client.rpc("tools/list", json!({})).await;
    assert_eq!(
        refused.header("www-authenticate"),
        "Bearer realm=\"odin_farm\""
    );
    set.farm.finish().await;
}

#[tokio::test]
async fn only_people_with_the_right_decide_about_sign_ins() {
    let farm = Farm::new().await;
    let trust = "SELECT odin.trust_issuer('https://id.example.org', '{x}')";
    let admin = farm.role("boss", "odin_admin").await;
    let operator = farm.role("op", "odin_operator").await;
    let boss = farm.client(&admin).await;
    let op = farm.client(&operator).await;
    assert!(refusal(&boss, trust).await.starts_with("OD005"));
    assert!(refusal(&op, trust).await.starts_with("42501"));
    assert!(refusal(
        &farm.admin,
        "SELECT odin.trust_issuer('http://id.example.org', '{x}')"
    )
    .await
    .starts_with("OD001"));
    assert!(refusal(
        &farm.admin,
        "SELECT odin.trust_issuer('https://id.example.org', '{x}', algorithms => '{HS256}')"
    )
    .await
    .starts_with("OD001"));
    farm.sql(trust).await;
    let allow = |who: &str, scopes: &str| {
        format!(
            "SELECT odin.allow_sign_in('https://id.example.org', 'ada', '{who}', '{{{scopes}}}')"
        )
    };
    // Nobody makes himself the owner of a subject; an administrator does it for his own org, and no role gets more than it has.
    assert!(refusal(&op, &allow(&operator, "agent:read"))
        .await
        .starts_with("42501"));
    assert!(refusal(&boss, &allow(&operator, "admin"))
        .await
        .starts_with("OD005"));
    assert!(refusal(&boss, &allow("postgres", "agent:read"))
        .await
        .starts_with("OD001"));
    boss.batch_execute(&allow(&operator, "agent:read"))
        .await
        .unwrap();
    assert!(refusal(&boss, &allow(&operator, "agent:read"))
        .await
        .starts_with("OD001"));
    // It has no secret that could be renewed.
    let rotate = "SELECT odin.rotate_key(id) FROM odin.keys WHERE prefix = 'sign-in'";
    assert!(refusal(&boss, rotate).await.starts_with("OD001"));
    // The gateway's login can make nothing of all this.
    let gateway = farm.client("odin_gateway").await;
    for sql in [
        trust,
        "SELECT * FROM odin.issuers",
        "SELECT odin.worker_issuer_keys(1, '{}', NULL)",
        "INSERT INTO odin_private.sign_ins VALUES ('', 1, '{admin}', now())",
    ] {
        assert!(refusal(&gateway, sql).await.starts_with("42501"), "{sql}");
    }
    farm.finish().await;
}
