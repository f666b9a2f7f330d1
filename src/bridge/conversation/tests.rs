//! Which message reaches which caller.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::routing::RoutedMessage;
use super::*;

fn message(value: &Value) -> RpcMessage {
    let raw: Box<RawValue> = serde_json::from_str(&value.to_string()).unwrap();
    RpcMessage::read(&raw).unwrap()
}

fn request(id: &Value, token: &Value) -> RpcMessage {
    message(&json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": { "name": "x", "_meta": { "progressToken": token } } }))
}

fn caller(name: &str) -> BridgeCaller {
    Arc::from(name)
}

async fn deliver(routed: RoutedMessage) -> usize {
    let count = routed.deliveries.len();
    for (to, delivery) in routed.deliveries {
        let length = delivery.text.len();
        to.send(delivery, length).await.unwrap();
    }
    count
}

#[tokio::test]
async fn callers_of_one_process_never_see_each_others_answers() {
    let shared = Conversation::new(Sharing::Anybody, 1000);
    let mut first = shared.begin(&caller(""), &request(&json!(7), &json!(7)), true).unwrap();
    let mut second = shared.begin(&caller(""), &request(&json!(7), &json!("7")), true).unwrap();
    assert_ne!(first.id, second.id);
    let sent: Value = serde_json::from_str(&second.text).unwrap();
    assert_eq!(sent["id"], sent["params"]["_meta"]["progressToken"]);

    let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress",
        "params": { "progressToken": sent["id"], "progress": 1 } });
    assert_eq!(deliver(shared.route(&message(&progress))).await, 1);
    let answer = json!({ "jsonrpc": "2.0", "id": sent["id"], "result": { "n": 2 } });
    assert_eq!(deliver(shared.route(&message(&answer))).await, 1);
    let told: Value = serde_json::from_str(&second.events.next().await.unwrap().text).unwrap();
    assert_eq!(told["params"]["progressToken"], "7");
    let told = second.events.next().await.unwrap();
    assert_eq!(told.kind, DeliveryKind::Result);
    let told: Value = serde_json::from_str(&told.text).unwrap();
    assert_eq!((&told["id"], &told["result"]["n"]), (&json!(7), &json!(2)));

    // What belongs to nobody's request, and what comes too late, reaches nobody.
    let log = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": {} });
    shared.begin(&caller(""), &request(&json!(8), &json!(8)), true).unwrap();
    assert_eq!(deliver(shared.route(&message(&log))).await, 0);
    assert_eq!(deliver(shared.route(&message(&progress))).await, 0);
    assert_eq!(deliver(shared.route(&message(&answer))).await, 0);
    assert!(!shared.forget(&first.id, first.order + 9));
    assert!(shared.forget(&first.id, first.order));
    assert!(first.events.next().await.is_none());
}

#[tokio::test]
async fn a_subscription_has_the_id_that_its_caller_gave_it() {
    let shared = Conversation::new(Sharing::Anybody, 1000);
    let listen =
        message(&json!({ "jsonrpc": "2.0", "id": "mine", "method": "subscriptions/listen" }));
    let mut call = shared.begin(&caller(""), &listen, true).unwrap();
    let id: Value = serde_json::from_str(&call.id.to_json()).unwrap();
    let changed = |id: &Value| {
        message(&json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed",
            "params": { "_meta": { "io.modelcontextprotocol/subscriptionId": id } } }))
    };
    assert_eq!(deliver(shared.route(&changed(&id))).await, 1);
    assert_eq!(deliver(shared.route(&changed(&json!(99)))).await, 0);
    let told: Value = serde_json::from_str(&call.events.next().await.unwrap().text).unwrap();
    assert_eq!(told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "mine");
}

#[tokio::test]
async fn a_question_of_a_shared_process_is_answered_by_the_one_who_was_asked() {
    let shared = Conversation::new(Sharing::OnePerson, 1000);
    let question = json!({ "jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage" });
    let alone = shared.route(&message(&question));
    assert!(alone.deliveries.is_empty() && alone.reply.unwrap().contains("-32601"));

    let _first = shared.listen(&caller("a")).unwrap();
    let (_, mut second) = shared.listen(&caller("b")).unwrap();
    assert_eq!(deliver(shared.route(&message(&question))).await, 1);
    assert!(second.next().await.unwrap().text.contains("sampling"));
    let answer = message(&json!({ "jsonrpc": "2.0", "id": "q", "result": {} }));
    assert_eq!(shared.pass_on(&caller("a"), &answer), None);
    assert!(shared.pass_on(&caller("b"), &answer).is_some());
    assert_eq!(shared.pass_on(&caller("b"), &answer), None, "one answer");
}

#[tokio::test]
async fn a_request_is_given_up_only_by_its_own_session() {
    let shared = Conversation::new(Sharing::OnePerson, 1000);
    let call = shared.begin(&caller("a"), &request(&json!(1), &json!(1)), true).unwrap();
    let cancel = message(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled",
        "params": { "requestId": 1 } }));
    assert_eq!(shared.pass_on(&caller("b"), &cancel), None);
    let text = shared.pass_on(&caller("a"), &cancel).unwrap();
    assert!(text.contains(&format!("\"requestId\":{}", call.id.to_json())), "{text}");
}

#[tokio::test]
async fn a_session_gets_everything_unchanged_and_nothing_is_lost_before_its_stream() {
    let own = Conversation::new(Sharing::OneSession, 1000);
    let me = caller("s");
    let changed = message(&json!({ "jsonrpc": "2.0", "method": "notifications/x", "z": 1 }));
    assert!(own.route(&changed).deliveries.is_empty());
    let (first, mut events) = own.listen(&me).unwrap();
    assert_eq!(events.next().await.unwrap().text, changed.text());

    let call = own.begin(&me, &request(&json!("a"), &json!("t")), true).unwrap();
    assert_eq!(call.text, request(&json!("a"), &json!("t")).text());
    let twice = own.begin(&me, &request(&json!("a"), &json!("t")), true);
    assert_eq!(twice.err(), Some(NotBegun::IdInUse));

    // A newer stream replaces the older one, whose end changes nothing.
    let (_, mut newer) = own.listen(&me).unwrap();
    assert!(events.next().await.is_none());
    own.stop_listening(&me, first);
    assert_eq!(deliver(own.route(&changed)).await, 1);
    assert!(newer.next().await.is_some());

    let ended = own.end("it ended");
    assert_eq!(ended.len(), 1);
    assert!(ended[0].1.text.contains("it ended") && ended[0].1.text.contains("\"id\":\"a\""));
    assert!(own.listen(&me).is_none() && own.is_quiet());
    let late = own.begin(&me, &request(&json!("b"), &json!(2)), true);
    assert_eq!(late.err(), Some(NotBegun::Ended("it ended".to_owned())));
}
