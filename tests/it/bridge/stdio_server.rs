//! A tiny MCP server on standard input and output: this test program, started again with `TEST_STDIO_SERVER`.
//!
//! It is no MCP library on purpose: it shows the bytes that arrive, and misbehaves on command.

use std::io::{BufRead, Write};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// The variable that makes this program the server. `stubborn` ignores the end of its input.
pub(super) const VARIABLE: &str = "TEST_STDIO_SERVER";

#[test]
#[ignore = "not a test: other tests start it as a process"]
fn as_a_process() {
    let Ok(manner) = std::env::var(VARIABLE) else { return };
    let server = Arc::new(StdioServer::default());
    StdioServer::write("\n"); // the test runner may have begun a line
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        // Noted in the order of arrival. Answers may take long, and others come first.
        server.seen.lock().unwrap().push(line.clone());
        let server = Arc::clone(&server);
        std::thread::spawn(move || server.handle(&line));
    }
    if manner == "stubborn" {
        loop {
            std::thread::park();
        }
    }
    std::process::exit(0);
}

#[derive(Default)]
struct StdioServer {
    /// Everything that arrived.
    seen: Mutex<Vec<String>>,
}

impl StdioServer {
    fn write(text: &str) {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .unwrap_or_else(|_| std::process::exit(0));
    }

    fn send(message: &Value) {
        Self::write(&format!("{message}\n"));
    }

    fn notify(method: &str, params: &Value) {
        Self::send(&json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    fn handle(&self, line: &str) {
        let message: Value = serde_json::from_str(line).unwrap();
        let id = &message["id"];
        let params = &message["params"];
        let result = match message["method"].as_str() {
            Some("initialize") => json!({
                "protocolVersion": params["protocolVersion"],
                "capabilities": { "tools": {} },
                "serverInfo": { "name": "stdio", "version": "1" },
            }),
            Some("tools/call") => match self.call(id, params) {
                Some(result) => result,
                None => return,
            },
            Some("x/raw") => {
                // Numbers and members as no JSON library would write them.
                let line = Value::from(line);
                let answer = r#"{ "more":1.50 ,"jsonrpc":"2.0","#.to_owned()
                    + &format!(
                        r#""id":{id},"result":{{"line":{line},"n":10000000000000000000001}}}}"#
                    );
                Self::write(&format!("{answer}\n"));
                return;
            }
            Some("notifications/announce") => {
                Self::notify("notifications/x/new", params);
                return;
            }
            Some("subscriptions/listen") => {
                let meta = json!({ "io.modelcontextprotocol/subscriptionId": id });
                Self::notify("notifications/subscriptions/acknowledged", &json!({ "_meta": meta }));
                Self::notify("notifications/tools/list_changed", &json!({ "_meta": meta }));
                return;
            }
            Some(_) if !id.is_null() => {
                let error = json!({ "code": -32601, "message": "Method not found" });
                Self::send(&json!({ "jsonrpc": "2.0", "id": id, "error": error }));
                return;
            }
            _ => return,
        };
        Self::send(&json!({ "jsonrpc": "2.0", "id": id, "result": result }));
    }

    fn call(&self, id: &Value, params: &Value) -> Option<Value> {
        let arguments = &params["arguments"];
        let text = |text: String| Some(json!({ "content": [{ "type": "text", "text": text }] }));
        match params["name"].as_str().unwrap() {
            "echo" => text(arguments["text"].as_str().unwrap().to_owned()),
            "pid" => text(std::process::id().to_string()),
            "env" => {
                let all: std::collections::BTreeMap<_, _> = std::env::vars().collect();
                text(serde_json::to_string(&all).unwrap())
            }
            "seen" => text(self.seen.lock().unwrap().join("\n")),
            "never" => None,
            "exit" => std::process::exit(7),
            "progress" => {
                let token = &params["_meta"]["progressToken"];
                let progress = json!({ "progressToken": token, "progress": 1 });
                Self::notify("notifications/progress", &progress);
                text("done".to_owned())
            }
            "announce" => {
                Self::notify("notifications/x/new", arguments);
                text("done".to_owned())
            }
            "ask" => {
                let question = json!({ "messages": [], "maxTokens": 1 });
                Self::send(&json!({ "jsonrpc": "2.0", "id": format!("q-{id}"),
                    "method": "sampling/createMessage", "params": question }));
                let wanted = format!("q-{}", id.to_string().replace('"', ""));
                loop {
                    let seen = self.seen.lock().unwrap().clone();
                    let mut messages =
                        seen.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
                    let answer = messages.find(|message| {
                        message["id"].as_str().is_some_and(|id| id.replace('"', "") == wanted)
                            && message.get("method").is_none()
                    });
                    if let Some(answer) = answer {
                        return text(answer.to_string());
                    }
                    std::thread::yield_now();
                }
            }
            "noise" => {
                Self::write(
                    "Listening…\n\n{\"jsonrpc\":\"2.0\"\n[1,2]\n7\n{\"jsonrpc\":\"2.0\",\"id\":",
                );
                Self::write("1,\"id\":2,\"result\":{}}\n");
                let mut out = std::io::stdout().lock();
                out.write_all(b"\xff\xfe\x00{}\n").unwrap();
                drop(out);
                text("after the noise".to_owned())
            }
            "endless" => loop {
                Self::write(&"x".repeat(1000));
            },
            "huge" => {
                text("x".repeat(usize::try_from(arguments["size"].as_u64().unwrap()).unwrap()))
            }
            "stderr" => {
                let mut err = std::io::stderr().lock();
                let long = "y".repeat(100_000);
                err.write_all(format!("\u{1b}[2Jwiped\u{202e}\nsecond\n{long}\n").as_bytes())
                    .unwrap();
                text("said".to_owned())
            }
            other => panic!("no tool {other}"),
        }
    }
}
