// A client made of LangChain4j, with Nimbus' reader of metadata beside it. It does as it is told: a line on standard
// input is a command, a line on standard output is what came of it. LangChain4j knows no OAuth: the token comes from
// outside, as a header. Run by langchain4j.test.mjs.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.nimbusds.oauth2.sdk.as.AuthorizationServerMetadata;
import com.nimbusds.oauth2.sdk.id.Issuer;
import com.nimbusds.openid.connect.sdk.op.OIDCProviderMetadata;
import dev.langchain4j.agent.tool.ToolExecutionRequest;
import dev.langchain4j.mcp.client.DefaultMcpClient;
import dev.langchain4j.mcp.client.McpClient;
import dev.langchain4j.mcp.client.transport.http.StreamableHttpMcpTransport;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.Map;

public class Client {
    private static volatile String token = "";

    public static void main(String[] args) throws Exception {
        var json = new ObjectMapper();
        var lines = new BufferedReader(new InputStreamReader(System.in));
        McpClient client = null;
        for (String line; (line = lines.readLine()) != null; ) {
            JsonNode command = json.readTree(line);
            Object result = null;
            try {
                switch (command.get("do").asText()) {
                    case "token" -> token = command.get("token").asText();
                    case "connect" -> client = connect(command.get("url").asText());
                    case "list" -> result = client.listTools().stream().map(tool -> tool.name()).toList();
                    case "call" -> {
                        var answer = client.executeTool(ToolExecutionRequest.builder()
                            .name(command.get("tool").asText())
                            .arguments(command.get("arguments").toString())
                            .build());
                        result = Map.of("isError", answer.isError(), "text", answer.resultText());
                    }
                    case "metadata" -> {
                        var issuer = new Issuer(command.get("issuer").asText());
                        var openid = OIDCProviderMetadata.resolve(issuer);
                        var oauth = AuthorizationServerMetadata.resolve(issuer);
                        result = Map.of("openid", openid.getIDTokenJWSAlgs().toString(), "token", oauth.getTokenEndpointURI().toString());
                    }
                    default -> throw new IllegalArgumentException(line);
                }
                System.out.println(json.writeValueAsString(result == null ? Map.of("result", true) : Map.of("result", result)));
            } catch (Exception error) {
                System.out.println(json.writeValueAsString(Map.of("error", words(error))));
            }
        }
        if (client != null) client.close();
        System.exit(0);
    }

    // What a developer reads: the exception and its causes.
    private static String words(Throwable error) {
        var words = new StringBuilder();
        for (Throwable cause = error; cause != null; cause = cause.getCause()) {
            words.append(words.isEmpty() ? "" : ": ").append(cause.getClass().getSimpleName()).append(": ").append(cause.getMessage());
        }
        return words.toString();
    }

    private static McpClient connect(String url) {
        // Java's HTTP client as it comes: it offers `h2c` with every request.
        var transport = new StreamableHttpMcpTransport.Builder()
            .url(url)
            .customHeaders(() -> Map.of("Authorization", "Bearer " + token))
            .timeout(Duration.ofSeconds(20))
            .build();
        return new DefaultMcpClient.Builder()
            .transport(transport)
            .autoHealthCheck(false)
            .initializationTimeout(Duration.ofSeconds(20))
            .toolExecutionTimeout(Duration.ofSeconds(20))
            .build();
    }
}
