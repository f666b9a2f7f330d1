package example;

import io.quarkiverse.mcp.server.Tool;
import io.quarkiverse.mcp.server.ToolArg;
import io.quarkiverse.mcp.server.ToolCallException;
import io.quarkus.security.identity.SecurityIdentity;
import jakarta.inject.Inject;
import org.eclipse.microprofile.jwt.JsonWebToken;

/** A greeter, with Quarkus' MCP server behind Quarkus OIDC as the verifier of Portcullis' tokens. */
public class Greeter {
    @Inject
    SecurityIdentity caller;

    @Inject
    JsonWebToken token;

    @Tool(name = "greet", description = "Says hello to you.")
    String greet() {
        need("greet");
        return "Hello, " + token.getSubject() + ".";
    }

    @Tool(name = "announce", description = "Tells everybody something.")
    String announce(@ToolArg(description = "What to tell") String text) {
        need("announce");
        return "Everybody hears: " + text;
    }

    private void need(String permission) {
        if (!caller.hasRole(permission)) throw new ToolCallException("This needs the permission " + permission + ".");
    }
}
