package example;

import static org.springframework.security.config.http.SessionCreationPolicy.STATELESS;

import org.springframework.beans.factory.annotation.Value;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.oauth2.jose.jws.SignatureAlgorithm;
import org.springframework.security.oauth2.jwt.JwtClaimValidator;
import org.springframework.security.oauth2.jwt.JwtDecoder;
import org.springframework.security.oauth2.jwt.JwtValidators;
import org.springframework.security.oauth2.jwt.NimbusJwtDecoder;
import org.springframework.security.web.SecurityFilterChain;

@Configuration
class Security {
    @Value("${portcullis.issuer}")
    private String issuer;

    @Value("${portcullis.mcp-url}")
    private String mcpUrl;

    /** The decoder that Spring Boot makes from properties accepts the type `JWT` only. */
    @Bean
    JwtDecoder jwtDecoder() {
        var decoder = NimbusJwtDecoder.withJwkSetUri(issuer + "/.well-known/jwks.json")
            .validateType(false) // by the validator below, which wants `at+jwt`
            .jwsAlgorithm(SignatureAlgorithm.ES256) // `token_alg` of the resource
            .build();
        decoder.setJwtValidator(JwtValidators.createAtJwtValidator()
            .issuer(issuer)
            .audience(mcpUrl)
            .validators(all -> all.put("client_id", new JwtClaimValidator<String>("client_id", id -> id != null && !id.isEmpty())))
            .build());
        return decoder;
    }

    @Bean
    SecurityFilterChain chain(HttpSecurity http) throws Exception {
        return http
            .csrf(csrf -> csrf.disable()) // no cookies, no forms
            .sessionManagement(sessions -> sessions.sessionCreationPolicy(STATELESS))
            .authorizeHttpRequests(requests -> requests
                .requestMatchers("/.well-known/oauth-protected-resource/**").permitAll()
                .requestMatchers("/mcp").hasAuthority("SCOPE_greet")
                .anyRequest().authenticated())
            .oauth2ResourceServer(server -> server
                .jwt(jwt -> {})
                .protectedResourceMetadata(metadata -> metadata.protectedResourceMetadataCustomizer(about -> about
                    .resource(mcpUrl)
                    .authorizationServer(issuer)
                    .scope("greet")
                    .scope("announce")
                    .resourceName("Greeter (Java)"))))
            .build();
    }
}
