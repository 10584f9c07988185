//! Paths of the REST face. Those that clients of ODIN know are rows of a table onto tools; nothing is implemented here.

/// What a path of our own does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    Version,
    OpenApi,
    Me,
    Tools,
    Tool,
    Call,
    Task,
    TaskCancel,
    /// A person's own business, by his database login: the act's name in the database, and its HTTP status.
    Person(&'static str, u16),
}

/// (method, path, what it does)
pub const OWN: &[(&str, &str, Own)] = &[
    ("GET", "version", Own::Version),
    ("GET", "openapi.json", Own::OpenApi),
    ("GET", "me", Own::Me),
    ("GET", "tools", Own::Tools),
    ("GET", "tools/{name}", Own::Tool),
    ("POST", "tools/{name}", Own::Call),
    ("GET", "tasks/{id}", Own::Task),
    ("POST", "tasks/{id}/cancel", Own::TaskCancel),
    ("GET", "tokens", Own::Person("list_keys", 200)),
    ("POST", "tokens", Own::Person("mint_key", 201)),
    ("DELETE", "tokens/{id}", Own::Person("revoke_key", 200)),
    ("POST", "tokens/{id}/rotate", Own::Person("rotate_key", 201)),
    ("GET", "consents", Own::Person("list_consents", 200)),
    (
        "POST",
        "consents/{id}/approve",
        Own::Person("approve_call", 200),
    ),
    ("POST", "consents/{id}/deny", Own::Person("deny_call", 200)),
];

/// How a tool's result becomes the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Object,
    /// The rows under this key, as a bare array; without a limit all of them, page after page.
    List(&'static str),
}

/// A query parameter whose name or value is not the tool's own.
#[derive(Clone, Copy, Debug)]
pub struct Renamed {
    pub sent: &'static str,
    pub argument: &'static str,
    /// The one value that is understood, and what the tool gets for it.
    pub only: Option<(&'static str, &'static str)>,
}

/// One route onto a tool. A `{name}` in the path is the tool's argument of that name; every other query parameter and
/// every field of the body is an argument as it stands, and the dispatcher refuses what it does not know.
#[derive(Debug)]
pub struct Route {
    pub method: &'static str,
    pub path: &'static str,
    pub tool: &'static str,
    /// The row counts only if these query parameters have this value; None = are absent.
    pub when: &'static [(&'static str, Option<&'static str>)],
    pub renamed: &'static [Renamed],
    pub status: u16,
    pub shape: Shape,
}

const fn renamed(sent: &'static str, argument: &'static str) -> Renamed {
    Renamed {
        sent,
        argument,
        only: None,
    }
}

const STATUS: &[Renamed] = &[renamed("status", "status_filter")];
const OVERDUE: &[Renamed] = &[renamed("overdue", "overdue_only")];
/// Read alerts cannot be asked for alone, so only one value is understood.
const IS_READ: &[Renamed] = &[Renamed {
    sent: "is_read",
    argument: "unread_only",
    only: Some(("false", "true")),
}];

const fn list(
    path: &'static str,
    tool: &'static str,
    key: &'static str,
    renamed: &'static [Renamed],
) -> Route {
    Route {
        method: "GET",
        path,
        tool,
        when: &[],
        renamed,
        status: 200,
        shape: Shape::List(key),
    }
}

const fn one(method: &'static str, path: &'static str, tool: &'static str) -> Route {
    Route {
        method,
        path,
        tool,
        when: &[],
        renamed: &[],
        status: 200,
        shape: Shape::Object,
    }
}

pub const ROUTES: &[Route] = &[
    list("printers", "list_printers", "printers", STATUS),
    one("GET", "printers/{id}", "get_printer"),
    one("POST", "printers/{printer_id}/pause", "pause_printer"),
    one("POST", "printers/{printer_id}/resume", "resume_printer"),
    // ODIN's client has one request for "the queue" and "jobs that are pending": with a limit it is the list of jobs.
    Route {
        when: &[("status", Some("pending")), ("limit", None)],
        ..list("jobs", "list_queue", "queue", &[])
    },
    list("jobs", "list_jobs", "jobs", STATUS),
    Route {
        status: 201,
        ..one("POST", "jobs", "queue_job")
    },
    one("GET", "jobs/{id}", "get_job"),
    one("POST", "jobs/{job_id}/cancel", "cancel_job"),
    one("POST", "jobs/{job_id}/approve", "approve_job"),
    one("POST", "jobs/{job_id}/reject", "reject_job"),
    list("alerts", "list_alerts", "alerts", IS_READ),
    one("PATCH", "alerts/{alert_id}/read", "mark_alert_read"),
    one("PATCH", "alerts/{alert_id}/dismiss", "dismiss_alert"),
    list("spools", "list_spools", "spools", &[]),
    one("GET", "spools/{spool_id}", "get_spool"),
    one("PATCH", "spools/{spool_id}/use", "consume_spool"),
    one("POST", "filament-slots", "assign_spool"),
    list("filament-library", "list_filaments", "filaments", &[]),
    list(
        "maintenance/tasks",
        "list_maintenance_tasks",
        "tasks",
        OVERDUE,
    ),
    one("POST", "maintenance/logs", "complete_maintenance"),
    list("orders", "list_orders", "orders", STATUS),
    one("GET", "orders/{order_id}", "get_order"),
    one("GET", "summary", "farm_summary"),
];

/// A path found in one of the tables.
#[derive(Debug)]
pub enum Found {
    Own(Own),
    Tool(&'static Route),
}

/// Values of the path's `{names}`.
pub type Variables = Vec<(&'static str, String)>;

#[derive(Debug)]
pub enum Miss {
    NoSuchPath,
    /// The path exists; these are its methods.
    NotAllowed(String),
}

/// `path` is what follows /api/v1/.
pub fn find(
    method: &str,
    path: &str,
    query: &[(String, String)],
) -> Result<(Found, Variables), Miss> {
    let method = if method == "HEAD" { "GET" } else { method };
    let mut methods: Vec<&str> = Vec::new();
    for (own_method, pattern, own) in OWN {
        let Some(variables) = variables(pattern, path) else {
            continue;
        };
        if *own_method == method {
            return Ok((Found::Own(*own), variables));
        }
        methods.push(own_method);
    }
    for route in ROUTES {
        let Some(variables) = variables(route.path, path) else {
            continue;
        };
        if route.method == method && route.when.iter().all(|w| holds(w, query)) {
            return Ok((Found::Tool(route), variables));
        }
        methods.push(route.method);
    }
    if methods.is_empty() {
        return Err(Miss::NoSuchPath);
    }
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods.sort_unstable();
    methods.dedup();
    Err(Miss::NotAllowed(methods.join(", ")))
}

fn holds((name, wanted): &(&str, Option<&str>), query: &[(String, String)]) -> bool {
    let sent = query
        .iter()
        .find(|(n, _)| n == name)
        .map(|(_, v)| v.as_str());
    sent == *wanted
}

fn variables(pattern: &'static str, path: &str) -> Option<Variables> {
    let mut found = Vec::new();
    let mut parts = path.split('/');
    for wanted in pattern.split('/') {
        let part = parts.next()?;
        match wanted.strip_prefix('{').and_then(|w| w.strip_suffix('}')) {
            Some(_) if part.is_empty() => return None,
            Some(name) => found.push((name, percent_decode(part)?)),
            None if wanted == part => {}
            None => return None,
        }
    }
    parts.next().is_none().then_some(found)
}

/// None if what comes out is not UTF-8.
pub fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| char::from(b?).to_digit(16);
        let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(out).ok()
}

/// The query as pairs, in order. None if it cannot be read.
pub fn query_pairs(query: Option<&str>) -> Option<Vec<(String, String)>> {
    let pairs = query
        .unwrap_or_default()
        .split('&')
        .filter(|p| !p.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let read = |text: &str| percent_decode(&text.replace('+', " "));
            Some((read(name)?, read(value)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(method: &str, path: &str, query: &str) -> Option<(&'static str, Variables)> {
        match find(method, path, &query_pairs(Some(query)).unwrap()) {
            Ok((Found::Tool(route), variables)) => Some((route.tool, variables)),
            _ => None,
        }
    }

    #[test]
    fn paths_lead_to_tools() {
        assert_eq!(
            tool("GET", "printers", "status=idle").unwrap().0,
            "list_printers"
        );
        let (name, variables) = tool("POST", "jobs/42/cancel", "").unwrap();
        assert_eq!(
            (name, variables),
            ("cancel_job", vec![("job_id", "42".to_owned())])
        );
        assert_eq!(tool("HEAD", "jobs/42", "").unwrap().0, "get_job");
        assert!(tool("GET", "jobs/", "").is_none());
        assert!(tool("GET", "jobs/1/2", "").is_none());
    }

    #[test]
    fn pending_jobs_without_a_limit_are_the_queue() {
        assert_eq!(
            tool("GET", "jobs", "status=pending").unwrap().0,
            "list_queue"
        );
        assert_eq!(
            tool("GET", "jobs", "status=pending&limit=5").unwrap().0,
            "list_jobs"
        );
        assert_eq!(
            tool("GET", "jobs", "status=printing").unwrap().0,
            "list_jobs"
        );
        assert_eq!(tool("GET", "jobs", "").unwrap().0, "list_jobs");
    }

    #[test]
    fn a_wrong_method_is_told_the_right_ones() {
        let Err(Miss::NotAllowed(methods)) = find("DELETE", "jobs", &[]) else {
            panic!("found");
        };
        assert_eq!(methods, "GET, HEAD, POST");
        assert!(matches!(find("GET", "nothing", &[]), Err(Miss::NoSuchPath)));
    }

    #[test]
    fn queries_are_decoded() {
        let pairs = query_pairs(Some("a=1%202&b=x+y&c")).unwrap();
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        assert_eq!(pairs, [("a", "1 2"), ("b", "x y"), ("c", "")]);
        assert!(query_pairs(Some("a=%ff")).is_none());
        assert!(query_pairs(Some("a=%2")).is_none());
    }
}
