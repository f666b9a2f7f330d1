//! A connected service as the lists of the admin pages show it.

use crate::admin::names::{Linked, Names, server_name};
use crate::app::App;
use crate::config::Config;
use crate::storage::{ConnectionFilter, ConnectionRow, StorageError};
use crate::web::words::words;

words! {
    /// Words for connected services. The pages of a person and of a confirmation use them too.
    pub(in crate::admin) struct ServiceWords {
        title: "Connected services", "連携サービス";
        person: "Person", "利用者";
        service: "Service", "サービス";
        account: "Account", "アカウント";
        scopes: "Scopes", "スコープ";
        since: "Since", "開始";
        last_use: "Last use", "最終利用";
        never: "never", "なし";
        status: "Status", "状態";
        action: "Action", "操作";
        works: "works", "有効";
        broken: "to be connected again", "再連携が必要";
        used_by: "used by", "利用するMCPサーバー:";
        used_by_none: "no MCP server uses it", "利用するMCPサーバーはありません";
        unknown_account: "not known", "不明";
        no_scopes: "none", "なし";
        comma: ", ", "、";
        remove: "Remove", "連携を解除";
    }
}

/// A connected service, prepared for display.
pub(in crate::admin) struct ServiceView {
    pub(in crate::admin) row: ConnectionRow,
    pub(in crate::admin) person: Linked,
    /// Display name of the service, or the name that the configuration no longer has.
    pub(in crate::admin) service: String,
    /// The MCP servers that use the service, and what to say if there are none.
    pub(in crate::admin) used_by: String,
}

impl ServiceView {
    /// Prepares rows, with the names of their people.
    pub(in crate::admin) async fn of_all(
        app: &App,
        w: &'static ServiceWords,
        rows: Vec<ConnectionRow>,
    ) -> Result<Vec<Self>, StorageError> {
        let subjects: Vec<&str> = rows.iter().map(|row| row.subject.as_str()).collect();
        let names = Names::of(app.storage(), &subjects, &[]).await?;
        let config = app.config();
        let view = |row: ConnectionRow| Self {
            person: names.person(&row.subject),
            service: service_title(config, &row.name).to_owned(),
            used_by: used_by(config, w, &row.name),
            row,
        };
        Ok(rows.into_iter().map(view).collect())
    }

    /// Returns the granted scopes. Some services have none.
    pub(in crate::admin) fn scopes(&self, w: &ServiceWords) -> String {
        let scopes: Vec<&str> = self.row.scopes.iter().map(String::as_str).collect();
        if scopes.is_empty() { w.no_scopes.to_owned() } else { scopes.join(" ") }
    }

    /// Returns the first connected services of a filter.
    pub(in crate::admin) async fn first(
        app: &App,
        w: &'static ServiceWords,
        filter: &ConnectionFilter,
        limit: i64,
    ) -> Result<Vec<Self>, StorageError> {
        let rows = app.storage().list_connections(filter, limit).await?;
        Self::of_all(app, w, rows).await
    }
}

/// Returns the display name of a service, or its name if it is no longer configured.
pub(in crate::admin) fn service_title<'a>(config: &'a Config, name: &'a str) -> &'a str {
    config.connection(name).map_or(name, |connection| connection.title.as_str())
}

/// Returns the MCP servers that use a service, or that there are none.
pub(super) fn used_by(config: &Config, w: &'static ServiceWords, name: &str) -> String {
    let users = config.resources.iter().filter(|resource| resource.connection_to(name).is_some());
    let names: Vec<&str> =
        users.map(|resource| server_name(&config.resources, &resource.id)).collect();
    match names.as_slice() {
        [] => w.used_by_none.to_owned(),
        names => format!("{} {}", w.used_by, names.join(w.comma)),
    }
}
