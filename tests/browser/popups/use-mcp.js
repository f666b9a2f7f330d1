// A page that uses `use-mcp`, as its README shows: it signs in in a popup. What the hook says is on `window`,
// for the test to read.

import { createElement, useEffect, useState } from "react";
import { createRoot } from "react-dom/client";
import { onMcpAuthorization } from "use-mcp";
import { useMcp } from "use-mcp/react";

function App({ url }) {
  const mcp = useMcp({ url, clientName: "A page with use-mcp", transportType: "http", debug: true, autoReconnect: false });
  const [answer, setAnswer] = useState("");
  const call = (name, args) => async () => {
    setAnswer("");
    setAnswer(await mcp.callTool(name, args).then(JSON.stringify, (error) => `failed: ${error.message}`));
  };
  useEffect(() => { window.said = mcp.log.map(({ message }) => message); }, [mcp.log]);
  return createElement("main", {},
    createElement("output", { id: "state" }, mcp.state),
    createElement("output", { id: "error" }, mcp.error ?? ""),
    createElement("button", { onClick: call("create-todo", { content: "Tea" }) }, "Create"),
    createElement("button", { onClick: call("purge-todos", {}) }, "Purge"),
    createElement("output", { id: "answer" }, answer));
}

function Callback() {
  useEffect(() => { onMcpAuthorization(); }, []);
  return createElement("p", {}, "Authenticating...");
}

const parameters = new URLSearchParams(location.search);
const page = location.pathname === "/oauth/callback" ? createElement(Callback) : createElement(App, { url: parameters.get("url") });
createRoot(document.getElementById("root")).render(page);
