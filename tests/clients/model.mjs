// A model without a mind, for programs that call tools only when a model says so: asked with
// `CALL tool {arguments} END`, it calls that tool, and then repeats what the tool answered.

import { createServer } from "node:http";

function answerTo(messages) {
  const contents = messages.flatMap(({ content }) => (typeof content === "string" ? [{ type: "text", text: content }] : content));
  const result = contents.find(({ type }) => type === "tool_result");
  if (result) return { type: "text", text: typeof result.content === "string" ? result.content : result.content.map(({ text }) => text).join() };
  const [, name, input] = contents.map(({ text }) => /CALL (\S+) (.*) END/.exec(text ?? "")).find(Boolean);
  return { type: "tool_use", id: "toolu_1", name, input: JSON.parse(input) };
}

export async function startModel() {
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const part of request) body += part;
    if (!/^\/v1\/messages(\?|$)/.test(request.url)) return response.writeHead(404).end();
    const { model, messages } = JSON.parse(body);
    const answer = answerTo(messages);
    const isCall = answer.type === "tool_use";
    const usage = { input_tokens: 1, output_tokens: 1 };
    response.writeHead(200, { "content-type": "text/event-stream" });
    const events = [
      { type: "message_start", message: { id: "msg_1", type: "message", role: "assistant", model, content: [], stop_reason: null, stop_sequence: null, usage } },
      { type: "content_block_start", index: 0, content_block: isCall ? { ...answer, input: {} } : { type: "text", text: "" } },
      { type: "content_block_delta", index: 0, delta: isCall ? { type: "input_json_delta", partial_json: JSON.stringify(answer.input) } : { type: "text_delta", text: answer.text } },
      { type: "content_block_stop", index: 0 },
      { type: "message_delta", delta: { stop_reason: isCall ? "tool_use" : "end_turn", stop_sequence: null }, usage },
      { type: "message_stop" },
    ];
    for (const event of events) response.write(`event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
    response.end();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    stop: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}
