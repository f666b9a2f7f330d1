//! All text that people read, in every language. A missing translation does not compile.

/// Declares a struct of texts with one value for each language, so that a page cannot lack one.
macro_rules! words {
    ($(#[$doc:meta])* $vis:vis struct $name:ident { $($field:ident: $en:literal, $ja:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug)]
        $vis struct $name { $(pub(crate) $field: &'static str,)* }

        impl $name {
            /// Returns the texts in `language`.
            $vis fn of(language: $crate::web::words::Language) -> &'static Self {
                static EN: $name = $name { $($field: $en,)* };
                static JA: $name = $name { $($field: $ja,)* };
                match language {
                    $crate::web::words::Language::English => &EN,
                    $crate::web::words::Language::Japanese => &JA,
                }
            }
        }
    };
}
pub(crate) use words;

/// A language of the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// English, also the default when no language matches.
    English,
    /// Japanese.
    Japanese,
}

impl Language {
    /// Returns the language that an `Accept-Language` header prefers (RFC 9110 §12.5.4).
    pub fn from_accept_language(header: Option<&str>) -> Self {
        let mut best = (0, Self::English);
        for range in header.unwrap_or_default().split(',') {
            let (tag, weight) = range.split_once(';').unwrap_or((range, ""));
            let primary = tag.trim().split('-').next().unwrap_or_default();
            let language = match primary.to_ascii_lowercase().as_str() {
                "en" => Self::English,
                "ja" => Self::Japanese,
                _ => continue,
            };
            let weight = thousandths(weight);
            if weight > best.0 {
                best = (weight, language);
            }
        }
        best.1
    }

    /// Returns the texts of this language.
    pub fn words(self) -> &'static Words {
        match self {
            Self::English => &EN,
            Self::Japanese => &JA,
        }
    }
}

/// Parses a quality value in thousandths: `q=0.8` is 800, an absent one is 1000, and an unreadable one is 0.
fn thousandths(parameter: &str) -> u16 {
    let parameter = parameter.trim();
    if parameter.is_empty() {
        return 1000;
    }
    let number = parameter.strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok());
    match number {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
        Some(q) if (0.0..=1.0).contains(&q) => (q * 1000.0) as u16,
        _ => 0,
    }
}

/// A message: its heading, what happened, and what the person can do.
#[derive(Debug)]
#[expect(missing_docs, reason = "the words say it")]
pub struct Text {
    pub title: &'static str,
    pub happened: &'static str,
    pub hint: &'static str,
}

/// The texts of one language. Fields in pairs enclose a value that is inserted between them.
#[derive(Debug)]
#[expect(missing_docs, reason = "the words say it")]
pub struct Words {
    pub lang: &'static str,

    pub consent_title: &'static str,
    pub wants_to_use: (&'static str, &'static str),
    pub loopback_is: &'static str,
    pub app_is: &'static str,
    pub opened_by: (&'static str, &'static str),
    pub published_by: (&'static str, &'static str),
    pub calls_itself: (&'static str, &'static str),
    pub no_name: &'static str,
    pub verified: &'static str,
    pub self_registered: &'static str,
    pub self_registered_note: &'static str,
    pub not_verified: &'static str,
    pub not_verified_note: &'static str,
    pub continue_only: (&'static str, &'static str),
    pub punycode_warning: &'static str,
    pub loopback_warning: &'static str,
    pub app_warning: &'static str,
    pub name_warning: &'static str,
    pub asks_to: &'static str,
    pub at_most: &'static str,
    pub no_scopes: &'static str,
    pub asked_for_unknown: &'static str,
    pub destructive: &'static str,
    pub new_scope: &'static str,
    pub approved_before: &'static str,
    pub included_in: (&'static str, &'static str),
    pub cancel: &'static str,
    pub continue_to: (&'static str, &'static str),
    pub other_account: &'static str,
    pub disconnect: (&'static str, &'static str),
    pub details: &'static str,
    pub scopes: &'static str,
    pub mcp_url: &'static str,
    pub full_address: &'static str,
    pub client_id: &'static str,

    pub questions: &'static str,
    pub terms: &'static str,
    pub privacy: &'static str,

    pub return_to: (&'static str, &'static str),
    pub automatic: &'static str,
    pub reference: &'static str,
    pub concerns: &'static str,
    pub signed_in_as: (&'static str, &'static str),
    pub no_access_to: (&'static str, &'static str),
    pub asked_for: &'static str,
    pub not_allowed: &'static str,
    pub again_in_seconds: (&'static str, &'static str),

    pub unknown_client: Text,
    pub client_document_refused: Text,
    pub client_document_unavailable: Text,
    pub client_documents_off: Text,
    pub no_network: Text,
    pub redirect_uri_not_registered: Text,
    pub redirect_uri_not_allowed: Text,
    pub invalid_request: Text,
    pub unknown_resource: Text,
    pub consent_expired: Text,
    pub consent_from_elsewhere: Text,
    pub already_decided: Text,
    pub nothing_chosen: Text,
    pub login_from_elsewhere: Text,
    pub login_expired: Text,
    pub login_used: Text,
    pub login_not_trusted: Text,
    pub signed_out_meanwhile: Text,
    pub no_access: Text,
    pub not_allowed_more: Text,
    pub provider_unavailable: Text,
    pub provider_cannot: Text,
    pub provider_ended_sign_in: Text,
    pub provider_misconfigured: Text,
    pub server_error: Text,
    pub temporarily_unavailable: Text,
    pub not_found: Text,
    pub method_not_allowed: Text,
    pub no_such_admin_page: Text,
    pub to_overview: &'static str,
    pub to_audit: &'static str,
    pub asked_too_often: Text,
    pub too_many_consent_pages: Text,
    pub too_many_sign_ins: Text,
    pub try_again_in: (&'static str, &'static str),
    pub try_again_in_a_minute: &'static str,
    pub request_too_large: Text,
    pub client_shut_out: Text,
    pub person_blocked: Text,
    pub form_from_elsewhere: Text,
    pub not_an_administrator: Text,
    pub login_refused: Text,
    pub waiting: Text,
    pub waiting_over: Text,
}

static EN: Words = Words {
    lang: "en",

    consent_title: "An application asks for access",
    wants_to_use: (" wants to use ", ""),
    loopback_is: "A program on this computer",
    app_is: "An app on this device",
    opened_by: ("opened by ", " links"),
    published_by: ("description published by the website ", ""),
    calls_itself: ("It calls itself “", "”"),
    no_name: "It did not give a name",
    verified: "Verified by your administrator",
    self_registered: "self-registered",
    self_registered_note: "The application registered itself here. Nobody has checked its name.",
    not_verified: "not verified",
    not_verified_note: "No administrator has confirmed who makes this application.",
    continue_only: ("Continue only if you just started this at ", "."),
    punycode_warning: "This address contains characters that can look like others. It may imitate a website you know.",
    loopback_warning: "Any program on this computer could be behind this. Continue only if you have just started it yourself.",
    app_warning: "Any app on this device could have claimed this kind of link. Continue only if you have just started it yourself.",
    name_warning: "This name looks made to be taken for another one.",
    asks_to: "It asks to",
    at_most: "You give it at most what your role allows.",
    no_scopes: "Connect to the server, without any particular permission.",
    asked_for_unknown: "The application asked for something else, which this server does not have. You give it what is listed here, and nothing more.",
    destructive: "deletes or overwrites",
    new_scope: "New",
    approved_before: "Approved before",
    included_in: ("Included in ", ""),
    cancel: "Cancel",
    continue_to: ("Continue to ", ""),
    other_account: "Continue with another account",
    disconnect: ("You can disconnect it at any time: ", "."),
    details: "Technical details",
    scopes: "Permissions",
    mcp_url: "MCP URL",
    full_address: "Redirect address",
    client_id: "Client ID",

    questions: "Questions?",
    terms: "Terms of service",
    privacy: "Privacy policy",

    return_to: ("Return to ", ""),
    automatic: "You are taken there in ten seconds.",
    reference: "Reference for your administrator:",
    concerns: "It concerns:",
    signed_in_as: ("You are signed in as ", "."),
    no_access_to: ("You do not have access to ", "."),
    asked_for: "The application asked for:",
    not_allowed: "Not allowed:",
    again_in_seconds: ("Please wait ", " seconds."),

    unknown_client: Text {
        title: "This application is not registered",
        happened: "The application that sent you here is not known to this server. It may have been removed, or it has not registered yet.",
        hint: "Go back to the application, disconnect this server there, and connect it again.",
    },
    client_document_refused: Text {
        title: "This application could not be recognised",
        happened: "The application is described on a website, and what stands there is not a description that this server accepts.",
        hint: "Connect again from the application. If this comes back, tell your administrator, and give the reference below.",
    },
    client_document_unavailable: Text {
        title: "This application cannot be checked right now",
        happened: "The application is described on a website that could not be read just now. Nothing was approved.",
        hint: "Please try again in a minute. If it lasts, tell your administrator, and give the reference below.",
    },
    client_documents_off: Text {
        title: "This application has to register itself",
        happened: "The application is described on a website, and this server is set not to read such descriptions. Nothing was approved.",
        hint: "Go back to the application, remove this server there, and add it again: the application then registers itself. If this comes back, tell your administrator, and give the reference below.",
    },
    no_network: Text {
        title: "This computer reaches no website",
        happened: "The application is described on a website, and this computer cannot reach any website now, so the description could not be read. Nothing was approved.",
        hint: "Without a network: go back to the application, remove this server there, and add it again; the application then registers itself. If it still comes here like this, start the demo with --no-client-documents. With a network: connect this computer to it, and try again.",
    },
    redirect_uri_not_registered: Text {
        title: "The return address is not registered",
        happened: "The application asked to send you back to an address that it did not register. You have not been sent there, because it could belong to somebody else.",
        hint: "Connect again from the application. If this comes back, tell the people who make it.",
    },
    redirect_uri_not_allowed: Text {
        title: "The return address is not allowed here",
        happened: "This server does not allow the return address of the application. You have not been sent there.",
        hint: "If you need this application, show this page to your administrator, who can allow the address.",
    },
    invalid_request: Text {
        title: "The application sent a wrong request",
        happened: "Something in the request does not follow the rules, so it was not carried out.",
        hint: "Connect again from the application. If this comes back, tell the people who make it.",
    },
    unknown_resource: Text {
        title: "This MCP server is no longer here",
        happened: "The MCP server that the application asked for is not, or no longer, behind this server.",
        hint: "Check the address in the application, or ask your administrator.",
    },
    consent_expired: Text {
        title: "This page was open for too long",
        happened: "For your safety a decision must be made within ten minutes. Nothing was approved.",
        hint: "Go back to the application and connect again.",
    },
    consent_from_elsewhere: Text {
        title: "This decision did not come from your page",
        happened: "The answer did not come from the page that was shown to this browser, so it was not accepted. Nothing was approved. This also happens when the browser blocks cookies.",
        hint: "Allow cookies for this site, then go back to the application and connect again.",
    },
    already_decided: Text {
        title: "You have already decided",
        happened: "This page was answered before, perhaps in another tab. The second answer was not used.",
        hint: "If the application is not connected yet, connect again from there.",
    },
    nothing_chosen: Text {
        title: "Choose at least one permission",
        happened: "You left out everything that the application asked for. Nothing was approved.",
        hint: "Go back and choose at least one permission, or press Cancel.",
    },
    login_from_elsewhere: Text {
        title: "This sign-in was not started in this browser",
        happened: "The sign-in that came back here does not belong to a request that this browser approved, so it was stopped. Somebody may have sent you a link.",
        hint: "If you were connecting an application yourself, go back to it and connect again, in one browser from start to end.",
    },
    login_expired: Text {
        title: "The sign-in took too long",
        happened: "The request has expired before the sign-in was finished.",
        hint: "Go back to the application and connect again.",
    },
    login_used: Text {
        title: "This sign-in is already finished",
        happened: "This page can be used only once. It was probably loaded again, or opened from the history.",
        hint: "If the application is not connected yet, connect again from there.",
    },
    login_not_trusted: Text {
        title: "The sign-in could not be verified",
        happened: "The answer of the service that signs you in failed a check, so it was not used. Nothing was given to the application.",
        hint: "Connect again from the application. If this comes back, tell your administrator, and give the reference below.",
    },
    signed_out_meanwhile: Text {
        title: "You have signed out meanwhile",
        happened: "While this sign-in was on its way, the service that signs you in told us that you have signed out. So it was not used.",
        hint: "If you want to go on, go back to where you started and sign in again.",
    },
    no_access: Text {
        title: "You have no access",
        happened: "",
        hint: "If you need it, ask your administrator, and give the reference below.",
    },
    not_allowed_more: Text {
        title: "You are not allowed more than before",
        happened: "The application needs a permission that the rules of this server do not give you. It stays connected with what it had.",
        hint: "If you need it, ask your administrator, and give the reference below.",
    },
    provider_unavailable: Text {
        title: "Sign-in is not available right now",
        happened: "The service that signs you in does not answer. Nothing was lost.",
        hint: "Please try again in a few minutes. If it lasts, tell your administrator.",
    },
    provider_cannot: Text {
        title: "Sign-in is not possible right now",
        happened: "The service that signs you in answered that it cannot do so at the moment. Nothing was lost.",
        hint: "Please try again in a few minutes. If it lasts, tell your administrator, and give the reference below.",
    },
    provider_ended_sign_in: Text {
        title: "The sign-in was ended",
        happened: "The service that signs you in has ended the sign-in: its page was open for too long, or you signed in there in another tab meanwhile. It was started again once, and ended in the same way.",
        hint: "Close other tabs with that service, go back to where you started, and sign in again.",
    },
    provider_misconfigured: Text {
        title: "Sign-in is not set up correctly",
        happened: "This server and the service that signs you in do not understand each other. You cannot fix this yourself.",
        hint: "Tell your administrator, and give the reference below.",
    },
    server_error: Text {
        title: "Something broke on our side",
        happened: "The request could not be finished because of a fault in this server.",
        hint: "Try again. If it happens again, tell your administrator, and give the reference below.",
    },
    temporarily_unavailable: Text {
        title: "Not available right now",
        happened: "The server cannot do this at the moment. Nothing was lost.",
        hint: "Please try again in a minute.",
    },
    not_found: Text {
        title: "There is nothing here",
        happened: "This address does not exist on this server.",
        hint: "To connect an MCP server, put its URL into your application.",
    },
    method_not_allowed: Text {
        title: "This page cannot be used that way",
        happened: "The address exists, but not for this kind of request.",
        hint: "Go back to the application and connect again.",
    },
    no_such_admin_page: Text {
        title: "This page does not exist",
        happened: "The address is wrong, or what the page was about is not stored here: it may have been deleted.",
        hint: "What happened to it is in the audit trail.",
    },
    to_overview: "Overview",
    to_audit: "Audit",
    too_many_consent_pages: Text {
        title: "Too many attempts",
        happened: "This application opened this page too often in this browser, and it was not approved. Nothing was approved.",
        hint: "Go on only if you want to connect it.",
    },
    too_many_sign_ins: Text {
        title: "Too many attempts",
        happened: "More sign-ins are open than this server allows. Nothing was approved.",
        hint: "There is room again when one of them ends, or expires.",
    },
    try_again_in: (" Please try again in ", " minutes."),
    try_again_in_a_minute: " Please try again in 1 minute.",
    asked_too_often: Text {
        title: "Too many requests",
        happened: "More was asked for from your network than this server allows, so this was not done.",
        hint: "Then load this page again, or go back and repeat what you did.",
    },
    request_too_large: Text {
        title: "The request is too large",
        happened: "More was sent than this page can accept.",
        hint: "Go back to the application and connect again.",
    },
    client_shut_out: Text {
        title: "This application is blocked",
        happened: "Your administrator has decided that this application may not be connected.",
        hint: "If you need it, ask your administrator, and give the reference below.",
    },
    person_blocked: Text {
        title: "Your access is blocked",
        happened: "Your administrator has blocked your access to this server.",
        hint: "Ask your administrator, and give the reference below.",
    },
    form_from_elsewhere: Text {
        title: "This form did not come from your page",
        happened: "The form was not sent by the page that was shown to this browser, so nothing was changed. This also happens when you signed in again in another tab.",
        hint: "Go back, load the page again, and repeat what you did.",
    },
    not_an_administrator: Text {
        title: "These pages are not for you",
        happened: "You are signed in, but you have none of the roles or groups that these pages are for.",
        hint: "If you need them, ask your administrator, and give the reference below.",
    },
    login_refused: Text {
        title: "You were not signed in",
        happened: "The service that signs you in said no, or you cancelled.",
        hint: "Go back and try again. If this comes back, tell your administrator, and give the reference below.",
    },
    waiting: Text {
        title: "Waiting for your administrator",
        happened: "This application is used here for the first time, so your administrator has to approve it. You are signed in, and they can see your request.",
        hint: "Leave this page open: it goes on by itself as soon as the application is approved.",
    },
    waiting_over: Text {
        title: "This request is over",
        happened: "The request that was waiting for your administrator has ended or expired, or it was begun in another browser.",
        hint: "Go back to the application and connect again.",
    },
};

static JA: Words = Words {
    lang: "ja",

    consent_title: "アプリケーションがアクセスを求めています",
    wants_to_use: (" が ", " の利用を求めています"),
    loopback_is: "このコンピューター上のプログラム",
    app_is: "この端末のアプリ",
    opened_by: ("", " リンクで開きます"),
    published_by: ("説明の公開元のウェブサイト: ", ""),
    calls_itself: ("自称「", "」"),
    no_name: "名前を名乗っていません",
    verified: "管理者が確認済み",
    self_registered: "自己登録",
    self_registered_note: "アプリケーションが自分で登録しました。名前は誰も確認していません。",
    not_verified: "未確認",
    not_verified_note: "このアプリケーションの提供元を確認した管理者はいません。",
    continue_only: ("たった今 ", " でご自身が始めた場合にのみ続けてください。"),
    punycode_warning: "このアドレスには、ほかの文字と見分けにくい文字が含まれています。よく知られたサイトの偽物かもしれません。",
    loopback_warning: "このコンピューター上のどのプログラムでも受け取れる可能性があります。たった今ご自身で始めた場合にのみ続けてください。",
    app_warning: "この端末のどのアプリでもこの形式のリンクを受け取れる可能性があります。たった今ご自身で始めた場合にのみ続けてください。",
    name_warning: "この名前は、ほかの名前と見間違えるように作られた可能性があります。",
    asks_to: "求めている操作",
    at_most: "あなたのロールで許可された範囲を超えることはありません。",
    no_scopes: "特定の権限なしでサーバーに接続すること。",
    asked_for_unknown: "アプリケーションは、このサーバーにない権限を求めました。与えられるのは、ここに挙げたものだけです。",
    destructive: "削除または上書き",
    new_scope: "新規",
    approved_before: "承認済み",
    included_in: ("", " に含まれます"),
    cancel: "キャンセル",
    continue_to: ("", " に進む"),
    other_account: "別のアカウントで続ける",
    disconnect: ("接続はいつでも解除できます: ", ""),
    details: "技術的な詳細",
    scopes: "権限",
    mcp_url: "MCPサーバーのURL",
    full_address: "リダイレクト先のアドレス",
    client_id: "クライアントID",

    questions: "お問い合わせ:",
    terms: "利用規約",
    privacy: "プライバシーポリシー",

    return_to: ("", " に戻る"),
    automatic: "10秒後に自動的に移動します。",
    reference: "管理者に伝える参照番号:",
    concerns: "問題の箇所:",
    signed_in_as: ("", " としてサインインしています。"),
    no_access_to: ("", " を利用する権限がありません。"),
    asked_for: "アプリケーションが求めた権限:",
    not_allowed: "許可されない権限:",
    again_in_seconds: ("", "秒お待ちください。"),

    unknown_client: Text {
        title: "このアプリケーションは登録されていません",
        happened: "あなたをここに案内したアプリケーションは、このサーバーに登録されていません。削除されたか、まだ登録されていない可能性があります。",
        hint: "アプリケーションに戻り、このサーバーとの接続を解除してから、もう一度接続してください。",
    },
    client_document_refused: Text {
        title: "このアプリケーションを確認できませんでした",
        happened: "アプリケーションの説明はウェブサイトで公開されていますが、その内容はこのサーバーで受け付けられないものでした。",
        hint: "アプリケーションからもう一度接続してください。繰り返す場合は、下の参照番号を添えて管理者に連絡してください。",
    },
    client_document_unavailable: Text {
        title: "現在このアプリケーションを確認できません",
        happened: "アプリケーションの説明が公開されているウェブサイトを読み取れませんでした。何も承認されていません。",
        hint: "しばらくしてからもう一度お試しください。続く場合は、下の参照番号を添えて管理者に連絡してください。",
    },
    client_documents_off: Text {
        title: "このアプリケーションは登録する必要があります",
        happened: "アプリケーションの説明はウェブサイトにありますが、このサーバーはそのような説明を読まない設定になっています。何も承認されていません。",
        hint: "アプリケーションに戻り、このサーバーを削除してから、もう一度追加してください。アプリケーションが自分で登録します。繰り返す場合は、下の参照番号を添えて管理者に連絡してください。",
    },
    no_network: Text {
        title: "このコンピューターはどのウェブサイトにも接続できません",
        happened: "アプリケーションの説明はウェブサイトにありますが、このコンピューターは現在どのウェブサイトにも接続できないため、説明を読めませんでした。何も承認されていません。",
        hint: "ネットワークなしで使う場合は、アプリケーションに戻り、このサーバーを削除してから、もう一度追加してください。アプリケーションが自分で登録します。それでもこのページが出る場合は、デモを --no-client-documents を付けて起動してください。ネットワークがある場合は、接続してからもう一度お試しください。",
    },
    redirect_uri_not_registered: Text {
        title: "戻り先のアドレスが登録されていません",
        happened: "アプリケーションは、登録していないアドレスへ戻そうとしました。他人のものである可能性があるため、移動しませんでした。",
        hint: "アプリケーションからもう一度接続してください。繰り返す場合は、その開発元に連絡してください。",
    },
    redirect_uri_not_allowed: Text {
        title: "戻り先のアドレスは許可されていません",
        happened: "このサーバーは、アプリケーションの戻り先のアドレスを許可していません。移動しませんでした。",
        hint: "このアプリケーションが必要な場合は、この画面を管理者に見せてください。管理者はアドレスを許可できます。",
    },
    invalid_request: Text {
        title: "アプリケーションの要求が正しくありません",
        happened: "要求の一部が規則に従っていないため、実行されませんでした。",
        hint: "アプリケーションからもう一度接続してください。繰り返す場合は、その開発元に連絡してください。",
    },
    unknown_resource: Text {
        title: "このMCPサーバーはありません",
        happened: "アプリケーションが求めたMCPサーバーは、ここにはないか、もう提供されていません。",
        hint: "アプリケーションに入力したアドレスを確かめるか、管理者に問い合わせてください。",
    },
    consent_expired: Text {
        title: "ページの有効期限が切れました",
        happened: "安全のため、10分以内に決める必要があります。何も承認されていません。",
        hint: "アプリケーションに戻り、もう一度接続してください。",
    },
    consent_from_elsewhere: Text {
        title: "この操作はあなたのページからのものではありません",
        happened: "このブラウザーに表示されたページからの回答ではないため、受け付けませんでした。何も承認されていません。Cookieがブロックされている場合にも起こります。",
        hint: "このサイトのCookieを許可し、アプリケーションに戻ってもう一度接続してください。",
    },
    already_decided: Text {
        title: "すでに回答済みです",
        happened: "このページには、別のタブなどですでに回答されています。2回目の回答は使われませんでした。",
        hint: "まだ接続されていない場合は、アプリケーションからもう一度接続してください。",
    },
    nothing_chosen: Text {
        title: "権限を1つ以上選んでください",
        happened: "アプリケーションが求めた権限がすべて外されました。何も承認されていません。",
        hint: "前のページに戻って1つ以上選ぶか、「キャンセル」を押してください。",
    },
    login_from_elsewhere: Text {
        title: "このブラウザーで始めたサインインではありません",
        happened: "戻ってきたサインインは、このブラウザーで承認した要求のものではないため、中止しました。誰かがリンクを送りつけた可能性があります。",
        hint: "ご自身で接続していた場合は、アプリケーションに戻り、最初から最後まで同じブラウザーで接続し直してください。",
    },
    login_expired: Text {
        title: "サインインに時間がかかりすぎました",
        happened: "サインインが終わる前に、要求の有効期限が切れました。",
        hint: "アプリケーションに戻り、もう一度接続してください。",
    },
    login_used: Text {
        title: "このサインインはすでに終わっています",
        happened: "このページは一度しか使えません。再読み込みされたか、履歴から開かれたようです。",
        hint: "まだ接続されていない場合は、アプリケーションからもう一度接続してください。",
    },
    login_not_trusted: Text {
        title: "サインインを確認できませんでした",
        happened: "サインインを行うサービスの応答が検証に通らなかったため、使用しませんでした。アプリケーションには何も渡していません。",
        hint: "アプリケーションからもう一度接続してください。繰り返す場合は、下の参照番号を添えて管理者に連絡してください。",
    },
    signed_out_meanwhile: Text {
        title: "サインアウトされました",
        happened: "このサインインの途中で、サインイン先のサービスからサインアウトしたという通知がありました。そのため、このサインインは使われませんでした。",
        hint: "続ける場合は、始めた場所に戻って、もう一度サインインしてください。",
    },
    no_access: Text {
        title: "利用する権限がありません",
        happened: "",
        hint: "必要な場合は、下の参照番号を添えて管理者に依頼してください。",
    },
    not_allowed_more: Text {
        title: "これ以上の権限はありません",
        happened: "アプリケーションが必要とする権限は、このサーバーの規則ではあなたに許可されていません。接続はこれまでの権限のまま続きます。",
        hint: "必要な場合は、下の参照番号を添えて管理者に依頼してください。",
    },
    provider_unavailable: Text {
        title: "現在サインインできません",
        happened: "サインインを行うサービスが応答しません。失われたものはありません。",
        hint: "数分後にもう一度お試しください。続く場合は管理者に連絡してください。",
    },
    provider_cannot: Text {
        title: "現在サインインできません",
        happened: "サインイン先のサービスから、現在は対応できないという応答がありました。失われたものはありません。",
        hint: "数分後にもう一度お試しください。続く場合は、下の参照番号を添えて管理者に連絡してください。",
    },
    provider_ended_sign_in: Text {
        title: "サインインが終了しました",
        happened: "サインイン先のサービスがサインインを終了しました。ページを長く開いたままにしていたか、別のタブでサインインした可能性があります。一度やり直しましたが、同じ結果でした。",
        hint: "そのサービスを開いているほかのタブを閉じ、始めた場所に戻って、もう一度サインインしてください。",
    },
    provider_misconfigured: Text {
        title: "サインインの設定に誤りがあります",
        happened: "このサーバーとサインインを行うサービスの設定が合っていません。ご自身では直せません。",
        hint: "下の参照番号を添えて管理者に連絡してください。",
    },
    server_error: Text {
        title: "サーバーで問題が起きました",
        happened: "このサーバーの不具合のため、要求を完了できませんでした。",
        hint: "もう一度お試しください。繰り返す場合は、下の参照番号を添えて管理者に連絡してください。",
    },
    temporarily_unavailable: Text {
        title: "現在ご利用いただけません",
        happened: "サーバーは今この操作を行えません。失われたものはありません。",
        hint: "1分ほど待ってからもう一度お試しください。",
    },
    not_found: Text {
        title: "ここには何もありません",
        happened: "このアドレスは、このサーバーにはありません。",
        hint: "MCPサーバーに接続するには、そのURLをアプリケーションに入力してください。",
    },
    method_not_allowed: Text {
        title: "このページはそのようには使えません",
        happened: "アドレスはありますが、この種類の要求には対応していません。",
        hint: "アプリケーションに戻り、もう一度接続してください。",
    },
    no_such_admin_page: Text {
        title: "このページはありません",
        happened: "アドレスが間違っているか、対象がここに保存されていません。削除された可能性があります。",
        hint: "何が起きたかは監査ログで確認できます。",
    },
    to_overview: "概要",
    to_audit: "監査",
    too_many_consent_pages: Text {
        title: "試行回数が多すぎます",
        happened: "このアプリケーションは、承認されないまま、このブラウザーでこのページを何度も開きました。何も承認されていません。",
        hint: "接続したい場合にのみ続けてください。",
    },
    too_many_sign_ins: Text {
        title: "試行回数が多すぎます",
        happened: "サーバーの上限を超える数のサインインが進行中です。何も承認されていません。",
        hint: "そのいずれかが終わるか期限が切れると、続けられます。",
    },
    try_again_in: ("", "分後にもう一度お試しください。"),
    try_again_in_a_minute: "1分後にもう一度お試しください。",
    asked_too_often: Text {
        title: "リクエストが多すぎます",
        happened: "お使いのネットワークからのリクエストがこのサーバーの上限を超えたため、実行されませんでした。",
        hint: "そのあとで、このページをもう一度読み込むか、戻って同じ操作を繰り返してください。",
    },
    request_too_large: Text {
        title: "要求が大きすぎます",
        happened: "このページで受け付けられる量を超えています。",
        hint: "アプリケーションに戻り、もう一度接続してください。",
    },
    client_shut_out: Text {
        title: "このアプリケーションはブロックされています",
        happened: "管理者の判断により、このアプリケーションは接続できません。",
        hint: "必要な場合は、下の参照番号を添えて管理者に依頼してください。",
    },
    person_blocked: Text {
        title: "あなたのアクセスはブロックされています",
        happened: "管理者が、このサーバーへのあなたのアクセスをブロックしました。",
        hint: "下の参照番号を添えて管理者に問い合わせてください。",
    },
    form_from_elsewhere: Text {
        title: "このフォームはあなたのページからのものではありません",
        happened: "このブラウザーに表示されたページから送られたフォームではないため、何も変更していません。別のタブでサインインし直した場合にも起こります。",
        hint: "前のページに戻って再読み込みし、もう一度操作してください。",
    },
    not_an_administrator: Text {
        title: "このページを利用する権限がありません",
        happened: "サインインはできましたが、このページに必要なロールまたはグループがありません。",
        hint: "必要な場合は、下の参照番号を添えて管理者に依頼してください。",
    },
    login_refused: Text {
        title: "サインインできませんでした",
        happened: "サインインを行うサービスが拒否したか、キャンセルされました。",
        hint: "前のページに戻ってもう一度お試しください。繰り返す場合は、下の参照番号を添えて管理者に連絡してください。",
    },
    waiting: Text {
        title: "管理者の承認を待っています",
        happened: "このアプリケーションはここで初めて使われるため、管理者の承認が必要です。サインインは済んでおり、管理者にはこの要求が見えています。",
        hint: "このページを開いたままにしてください。承認されると自動的に先へ進みます。",
    },
    waiting_over: Text {
        title: "この要求は終了しました",
        happened: "管理者の承認を待っていた要求は、終了したか、期限が切れたか、別のブラウザーで始められたものです。",
        hint: "アプリケーションに戻り、もう一度接続してください。",
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_language_is_chosen() {
        let cases = [
            (None, Language::English),
            (Some(""), Language::English),
            (Some("ja"), Language::Japanese),
            (Some("ja-JP,ja;q=0.9,en;q=0.8"), Language::Japanese),
            (Some("en-US,en;q=0.9,ja;q=0.8"), Language::English),
            (Some("en;q=0.1, ja;q=0.2"), Language::Japanese),
            (Some("de-DE, ja;q=0"), Language::English),
            (Some("fr, *;q=0.5"), Language::English),
            (Some("ja;q=broken, en;q=0.1"), Language::English),
            (Some(";;;,,,q="), Language::English),
        ];
        for (header, language) in cases {
            assert_eq!(Language::from_accept_language(header), language, "{header:?}");
        }
    }
}
