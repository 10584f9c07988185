//! Calls that a person has to agree to: where the client can ask one, it is asked here; where it cannot, the farm's own
//! answer (a preview, or "a person has to approve") explains itself.

use serde_json::{json, Map, Value};

use super::handler::Handler;
use crate::gateway::{CallOptions, Outcome};

/// Keys of our own questions; a tool's questions have its own keys.
const APPROVE: &str = "odin_approve";
const CONFIRM: &str = "odin_confirm";
/// Parts of a preview longer than this are not read by anybody.
const LONGEST: usize = 1_200;

/// What a person said about the call itself.
#[derive(Default)]
pub struct Consent {
    approved: Option<bool>,
    /// Which waiting request was asked about: an answer counts for that one only.
    request: Option<String>,
    confirmed: Option<bool>,
    /// The preview that was shown; the database refuses if things moved since.
    preview_token: Option<String>,
}

impl Consent {
    /// Our own answers, out of what the client sent; the state belongs to the question it was asked with.
    pub fn take(answers: &mut Map<String, Value>, state: &mut Option<String>) -> Consent {
        let mut consent = Consent::default();
        if let Some(answer) = answers.remove(APPROVE) {
            consent.approved = Some(agreed(&answer));
            consent.request = state.take();
        }
        if let Some(answer) = answers.remove(CONFIRM) {
            consent.confirmed = Some(agreed(&answer));
            consent.preview_token = state.take();
        }
        consent
    }

    pub fn prepare(&mut self, options: &mut CallOptions) {
        options.confirmed = self.confirmed == Some(true);
        if options.confirmed {
            options.preview_token = self.preview_token.take();
        }
    }

    /// Asked and not agreed: do not ask again.
    pub fn refused(&self) -> bool {
        self.approved == Some(false) || self.confirmed == Some(false)
    }

    /// Write an approval down for exactly the request the database is waiting with. True: run the call again.
    pub async fn decide(&self, handler: &Handler, outcome: &Outcome) -> bool {
        let (Some(approved), Outcome::Error(error)) = (self.approved, outcome) else {
            return false;
        };
        let Some(id) = error["consent_id"].as_i64() else {
            return false;
        };
        // Nobody was asked, or about something else.
        if error["code"] != "approval_required" || self.request != Some(id.to_string()) {
            return false;
        }
        let gateway = &handler.app.gateway;
        let decided = gateway.decide(&handler.caller, id, approved).await;
        decided.is_ok_and(|answer| answer["ok"] == Value::Bool(true))
    }
}

fn agreed(answer: &Value) -> bool {
    answer["action"] == "accept" && answer["content"]["agree"] == Value::Bool(true)
}

/// An answer that waits for a person, as a question to him; anything else as it is.
pub fn question(tool: &str, arguments: &Value, outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Error(error)
            if error["code"] == "approval_required" && error["consent_id"].is_i64() =>
        {
            let mut text = format!(
                "An agent wants to run {tool} with {}. The farm's rules ask for a person's approval.",
                short(arguments)
            );
            for (key, words) in [
                ("why", "Its reason: "),
                ("would_execute", "It would do this: "),
                ("would_fail", "As things are it would fail: "),
            ] {
                match &error[key] {
                    Value::Null => {}
                    Value::String(said) => text.push_str(&format!(" {words}{said}")),
                    said => text.push_str(&format!(" {words}{}", short(said))),
                }
            }
            ask(APPROVE, text, Some(error["consent_id"].to_string()))
        }
        Outcome::Complete {
            result,
            raw: false,
            markdown,
        } if is_policy_preview(&result, arguments) => {
            let Some(token) = result["preview_token"].as_str().map(str::to_owned) else {
                return Outcome::Complete {
                    result,
                    raw: false,
                    markdown,
                };
            };
            let text = format!(
                "An agent wants to run {tool}. It would do this: {}",
                short(&result["would_execute"])
            );
            ask(CONFIRM, text, Some(token))
        }
        other => other,
    }
}

/// A preview that nobody asked for: the tool's own policy wants a yes first.
fn is_policy_preview(result: &Value, arguments: &Value) -> bool {
    result["dry_run"] == Value::Bool(true)
        && arguments["dry_run"] != Value::Bool(true)
        && arguments.get("confirm").is_none()
}

fn ask(key: &str, message: String, state: Option<String>) -> Outcome {
    let question = json!({
        "method": "elicitation/create",
        "params": {
            "message": message,
            "requestedSchema": {
                "type": "object",
                "properties": {"agree": {
                    "type": "boolean",
                    "title": "Do it",
                    "description": "Yes: it is done now. No: nothing happens.",
                    "default": false,
                }},
                "required": ["agree"],
            },
        },
    });
    let mut requests = Map::new();
    requests.insert(key.to_owned(), question);
    Outcome::InputRequired { requests, state }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preview() -> Outcome {
        Outcome::Complete {
            result: json!({"dry_run": true, "would_execute": {"action": "x"}, "preview_token": "t"}),
            raw: false,
            markdown: false,
        }
    }

    #[test]
    fn a_preview_by_policy_becomes_a_question() {
        let Outcome::InputRequired { requests, state } = question("x", &json!({}), preview())
        else {
            panic!("no question")
        };
        assert!(requests.contains_key(CONFIRM));
        assert_eq!(state.as_deref(), Some("t"));
        // Asked for on purpose: it stays what it is.
        for arguments in [json!({"dry_run": true}), json!({"confirm": false})] {
            let outcome = question("x", &arguments, preview());
            assert!(matches!(outcome, Outcome::Complete { .. }));
        }
    }

    #[test]
    fn the_question_says_why_and_what() {
        let waits = Outcome::Error(
            json!({"code": "approval_required", "consent_id": 7, "why": "the customer asked",
            "would_execute": {"action": "refund"}}),
        );
        let Outcome::InputRequired { requests, state } =
            question("refund", &json!({"id": 1}), waits)
        else {
            panic!("no question")
        };
        assert_eq!(state.as_deref(), Some("7"));
        let message = requests[APPROVE]["params"]["message"].to_string();
        for part in ["refund with", "the customer asked", "action"] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn only_a_clear_yes_is_one() {
        let take = |answer: Value| {
            let mut answers = Map::from_iter([(CONFIRM.to_owned(), answer)]);
            let mut state = Some("t".to_owned());
            let mut options = CallOptions::default();
            let mut consent = Consent::take(&mut answers, &mut state);
            consent.prepare(&mut options);
            (options.confirmed, options.preview_token, state)
        };
        let yes = json!({"action": "accept", "content": {"agree": true}});
        assert_eq!(take(yes), (true, Some("t".into()), None));
        for no in [
            json!({"action": "accept", "content": {"agree": false}}),
            json!({"action": "accept"}),
            json!({"action": "decline"}),
            json!(null),
        ] {
            assert_eq!(take(no), (false, None, None));
        }
    }
}
