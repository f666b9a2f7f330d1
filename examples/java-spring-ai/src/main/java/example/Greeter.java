package example;

import org.springframework.ai.mcp.annotation.McpTool;
import org.springframework.ai.mcp.annotation.McpToolParam;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.security.access.AccessDeniedException;
import org.springframework.security.core.Authentication;
import org.springframework.security.core.context.SecurityContextHolder;
import org.springframework.stereotype.Component;

/** A greeter, with Spring AI behind Spring Security as the verifier of Portcullis' tokens. */
@SpringBootApplication
public class Greeter {
    public static void main(String[] arguments) {
        SpringApplication.run(Greeter.class, arguments);
    }

    @Component
    static class Tools {
        @McpTool(name = "greet", description = "Says hello to you.")
        String greet() {
            return "Hello, " + caller().getName() + ".";
        }

        @McpTool(name = "announce", description = "Tells everybody something.")
        String announce(@McpToolParam(description = "What to tell") String text) {
            boolean may = caller().getAuthorities().stream().anyMatch(held -> "SCOPE_announce".equals(held.getAuthority()));
            if (!may) throw new AccessDeniedException("This needs the permission announce.");
            return "Everybody hears: " + text;
        }

        private static Authentication caller() {
            return SecurityContextHolder.getContext().getAuthentication();
        }
    }
}
