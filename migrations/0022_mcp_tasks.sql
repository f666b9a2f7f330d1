-- Tasks of MCP servers (extension io.modelcontextprotocol/tasks): a task outlives the call that made it, so that
-- asking about it has to be allowed anew, for the person and the client that made it.
CREATE TABLE mcp_tasks (
    task_hash  TEXT NOT NULL PRIMARY KEY,    -- of the MCP server and the task's id, as base64url
    subject    TEXT NOT NULL,                -- who made it
    client_id  TEXT NOT NULL,                -- with what
    scopes     TEXT NOT NULL,                -- what the call needed, separated by spaces
    made_at    BIGINT NOT NULL,              -- Unix seconds
    expires_at BIGINT NOT NULL               -- when the server may forget it, and we do
);
CREATE INDEX mcp_tasks_by_subject ON mcp_tasks (subject, made_at);
CREATE INDEX mcp_tasks_by_expiry ON mcp_tasks (expires_at);
