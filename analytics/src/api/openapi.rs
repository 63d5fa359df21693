//! The description of the API, made from the routes themselves.

use axum::Json;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, ResponseBuilder};

use super::described;

/// What every path under `/api` may answer beside its own.
const USUAL: [(&str, &str); 8] = [
    ("401", "No token, or one that is not known or has expired"),
    ("403", "The token has not the right"),
    ("422", "The answer is over a limit"),
    ("429", "The token asks too often; Retry-After says when to come again"),
    ("500", "A fault of the server"),
    ("502", "The warehouse refuses what this program asks"),
    ("503", "The warehouse cannot be reached, or there is no place; Retry-After says when to come again"),
    ("504", "No answer in time"),
];

/// What stands over the paths.
pub(super) fn base() -> OpenApi {
    let description = "Queries over the biometric landing zone. Times are UTC in ISO 8601 unless a zone is asked for. \
                       Every error is application/problem+json (RFC 9457).";
    let info =
        InfoBuilder::new().title("biogate analytics").version(env!("CARGO_PKG_VERSION")).description(Some(description));
    OpenApiBuilder::new()
        .info(info.build())
        .security(Some([SecurityRequirement::new::<_, [String; 0], String>("bearer", [])]))
        .build()
}

/// The whole description.
pub fn describe() -> OpenApi {
    let mut document = described(None).into_openapi();
    let components = document.components.get_or_insert_with(Components::new);
    components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    for (path, item) in &mut document.paths.paths {
        if path.starts_with("/api/") {
            for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
                for (status, description) in USUAL {
                    operation.responses.responses.entry(status.to_owned()).or_insert_with(|| problem(description));
                }
            }
        }
    }
    document
}

fn problem(description: &str) -> RefOr<utoipa::openapi::Response> {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(description).content("application/problem+json", content).build().into()
}

/// This description
#[utoipa::path(get, path = "/openapi.json", tag = "server", security(()), responses(
    (status = 200, description = "OpenAPI", body = serde_json::Value),
))]
pub(super) async fn document() -> Json<OpenApi> {
    Json(describe())
}
