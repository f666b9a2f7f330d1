"""Checks the Helm chart in packaging/chart. Run by scripts/test-chart.

    python chart.py HELM CUSTOM_RESOURCES VALIDATE PORTCULLIS
"""

import copy
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request

import jsonschema
import kubernetes_validate
import yaml

HELM, RESOURCES, VALIDATE, PORTCULLIS = sys.argv[1:]
CHART = "packaging/chart"
# The oldest that the chart allows, and the newest that there are schemas for.
KUBERNETES = ["1.29", "1.37"]
# The user of the image.
USER = 65532
# A configuration as an operator writes it into a Secret.
TOML = yaml.safe_load(open(f"{CHART}/ci/sqlite.yaml"))["config"]["toml"]

failures = []


def check(holds, problem):
    if not holds:
        failures.append(problem)


def helm(*arguments):
    return subprocess.run([HELM, *arguments], capture_output=True, text=True)


def errors(result):
    """The messages of helm, without its notes on the links to the rules and the dashboard."""
    return "\n".join(line for line in result.stderr.splitlines() if not line.startswith("walk.go"))


def rendered(*arguments, kubernetes=KUBERNETES[-1], chart=CHART):
    result = helm("template", "mcp", chart, "--namespace", "access", "--kube-version", f"{kubernetes}.0", *arguments)
    if result.returncode != 0:
        sys.exit(f"helm template {' '.join(arguments)}: {errors(result)}")
    return [manifest for manifest in yaml.safe_load_all(result.stdout) if manifest]


def of_kind(manifests, kind):
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def server_of(manifests):
    """The Deployment, and its container."""
    (deployment,) = of_kind(manifests, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return deployment, container


# Schemas


def strict(schema):
    """Makes a schema of a custom resource refuse what it does not name, as the API server drops it."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: strict(inner) for name, inner in schema.items()}
    keeps = schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema and not keeps:
        schema["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
    return schema


def custom_resources():
    found = {}
    for file in pathlib.Path(RESOURCES).glob("*.yaml"):
        definition = yaml.safe_load(file.read_text())
        spec = definition["spec"]
        for version in spec["versions"]:
            # A Kubernetes object has these three beside its own.
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


CUSTOM = custom_resources()


def schema_problem(manifest, kubernetes):
    """What is wrong with a manifest, or None."""
    custom = CUSTOM.get((manifest["apiVersion"], manifest["kind"]))
    try:
        if custom:
            jsonschema.Draft7Validator(custom).validate(manifest)
        else:
            kubernetes_validate.validate(manifest, kubernetes, strict=True)
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as problem:
        return f"{'.'.join(map(str, problem.path))}: {problem.message}"
    except kubernetes_validate.SchemaNotFoundError as problem:
        return problem.message
    return None


def check_schemas(name, manifests, kubernetes):
    for manifest in manifests:
        problem = schema_problem(manifest, kubernetes)
        check(problem is None, f"{name} on {kubernetes}: {manifest['kind']}: {problem}")
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests]
    check(len(set(names)) == len(names), f"{name}: a name is given twice: {names}")


def api_server_problems(manifests):
    """What the API server would answer if these were created in a namespace with the Pod Security Standard "restricted"."""
    result = subprocess.run([VALIDATE], input=yaml.safe_dump_all(manifests), capture_output=True, text=True)
    checked, problems = result.stdout.splitlines()[-1], result.stdout.splitlines()[:-1]
    builtin = [one for one in manifests if (one["apiVersion"], one["kind"]) not in CUSTOM]
    if checked != f"{len(builtin)} checked":
        problems.append(f"{len(builtin)} expected, {checked} {result.stderr}")
    return problems


def check_that_the_api_server_bites():
    """Mistakes that fit the schemas."""
    def name_a_missing_volume(deployment, container):
        container["volumeMounts"][0]["name"] = "nothing"

    def select_other_pods(deployment, container):
        deployment["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"] = "other"

    def run_as_root(deployment, container):
        deployment["spec"]["template"]["spec"]["securityContext"] = {}

    def give_a_port_a_long_name(deployment, container):
        container["ports"][0]["name"] = "the-public-listener"

    def misspell(deployment, container):
        container["imagePullPolicies"] = "Always"

    for mistake in (name_a_missing_volume, select_other_pods, run_as_root, give_a_port_a_long_name, misspell):
        manifests = rendered("--values", f"{CHART}/ci/sqlite.yaml")
        mistake(*server_of(manifests))
        check(api_server_problems(manifests), f"the API server accepts this: {mistake.__name__}")


def check_that_schemas_bite():
    """A schema that accepts anything would prove nothing."""
    manifests = rendered("--values", f"{CHART}/ci/postgresql.yaml")
    manifests += of_kind(rendered("--values", f"{CHART}/ci/autoscaled-gateway-api.yaml"), "HTTPRoute")
    for manifest in manifests:
        broken = copy.deepcopy(manifest)
        inner = broken.get("spec", broken)
        inner["nosuchfield"] = 1
        check(schema_problem(broken, KUBERNETES[-1]), f"the schema of {manifest['kind']} accepts an unknown field")


# What the chart promises


def check_hardening(name, manifests):
    pods = [manifest["spec"]["template"]["spec"] for manifest in of_kind(manifests, "Deployment")]
    pods += [manifest["spec"] for manifest in of_kind(manifests, "Pod")]
    for pod in pods:
        check(pod["automountServiceAccountToken"] is False, f"{name}: a pod gets a token of the API server")
        check(pod["enableServiceLinks"] is False, f"{name}: a pod gets variables of Services")
        context = pod["securityContext"]
        check(context["runAsNonRoot"] and context["runAsUser"] == USER, f"{name}: the user is not {USER}")
        check(context["seccompProfile"] == {"type": "RuntimeDefault"}, f"{name}: no seccomp profile")
        for container in pod["containers"]:
            context = container["securityContext"]
            check(context["readOnlyRootFilesystem"], f"{name}: the root file system can be written")
            check(context["allowPrivilegeEscalation"] is False, f"{name}: privileges can grow")
            check(context["capabilities"] == {"drop": ["ALL"]}, f"{name}: capabilities are not dropped")
            check(container["resources"]["limits"]["memory"], f"{name}: no limit of memory")
            for mount in container.get("volumeMounts", []):
                check("subPath" not in mount, f"{name}: {mount['mountPath']} would never change in a running pod")
                writable = mount["mountPath"] == "/data" or mount.get("readOnly")
                check(writable, f"{name}: {mount['mountPath']} can be written")


def selects(selector, labels):
    return selector.items() <= labels.items()


def check_admin(name, manifests):
    """The admin listener is reached by a Service of its own, which no Ingress and no HTTPRoute names."""
    deployment, container = server_of(manifests)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    services = of_kind(manifests, "Service")
    for service in services:
        check(selects(service["spec"]["selector"], labels), f"{name}: a Service selects no pod")
    to_admin = [one for one in services if any(port["targetPort"] in ("admin", ports.get("admin")) for port in one["spec"]["ports"])]
    check(len(to_admin) == ("admin" in ports), f"{name}: {len(to_admin)} Services lead to the admin listener")
    for service in to_admin:
        check(service["spec"]["type"] == "ClusterIP", f"{name}: the admin Service is not a ClusterIP")
        check(len(service["spec"]["ports"]) == 1, f"{name}: the admin Service leads elsewhere, too")
    public = {one["metadata"]["name"] for one in services} - {one["metadata"]["name"] for one in to_admin}
    routes = of_kind(manifests, "Ingress") + of_kind(manifests, "HTTPRoute")
    for route in routes:
        named = set(backends(route["spec"]))
        check(named and named <= public, f"{name}: {route['kind']} leads to {named}, not to {public} alone")
    for policy in of_kind(manifests, "NetworkPolicy"):
        check(selects(policy["spec"]["podSelector"]["matchLabels"], labels), f"{name}: the policy selects no pod")
        for rule in policy["spec"]["ingress"]:
            to = [port["port"] for port in rule["ports"]]
            check(to == ["public"] or rule.get("from"), f"{name}: everybody reaches {to}")
    monitors = of_kind(manifests, "ServiceMonitor")
    for monitor in monitors:
        (endpoint,) = monitor["spec"]["endpoints"]
        found = [one for one in services if selects(monitor["spec"]["selector"]["matchLabels"], one["metadata"]["labels"])]
        check(found == to_admin, f"{name}: the ServiceMonitor selects another Service")
        check(endpoint["port"] == to_admin[0]["spec"]["ports"][0]["name"], f"{name}: the ServiceMonitor names no port")
        job = {"targetLabel": "job", "replacement": "portcullis"}
        check(job in endpoint["relabelings"], f"{name}: the alert rules select another job")


def backends(value):
    """The names of the Services that a route leads to, wherever it names them."""
    if isinstance(value, list):
        for one in value:
            yield from backends(one)
    elif isinstance(value, dict):
        if isinstance(value.get("service"), dict):
            yield value["service"]["name"]
        for one in value.get("backendRefs", []):
            yield one["name"]
        for one in value.values():
            yield from backends(one)


def check_replicas(name, manifests):
    deployment, container = server_of(manifests)
    strategy, pod = deployment["spec"]["strategy"], deployment["spec"]["template"]["spec"]
    variables = {one["name"]: one.get("value") for one in container["env"]}
    several = bool(of_kind(manifests, "HorizontalPodAutoscaler")) or deployment["spec"].get("replicas", 1) > 1
    if "sqlite" in variables.get("PORTCULLIS_DATABASE_URL", ""):
        check(not several, f"{name}: several replicas on SQLite")
        check(strategy == {"type": "Recreate"}, f"{name}: two pods open one SQLite file during a rollout")
    else:
        check(strategy["rollingUpdate"]["maxUnavailable"] == 0, f"{name}: a rollout leaves a gap")
    check(len(of_kind(manifests, "PodDisruptionBudget")) == several, f"{name}: the PodDisruptionBudget is wrong")
    check(("topologySpreadConstraints" in pod) == several, f"{name}: replicas are not spread")
    delay = int(variables["PORTCULLIS_LIMITS__SHUTDOWN_DELAY"].removesuffix("s"))
    check(pod["terminationGracePeriodSeconds"] >= delay + 15, f"{name}: the pod is killed before it has ended")
    check("preStop" not in json.dumps(container), f"{name}: the server waits itself; the image has no shell")


def check_rules():
    """The chart has the rules and the dashboard of packaging/, with links to the operator's copy of the runbooks."""
    manifests = rendered("--values", f"{CHART}/ci/postgresql.yaml")
    (rule,) = of_kind(manifests, "PrometheusRule")
    expected = yaml.safe_load(open("packaging/prometheus/alerts.yaml"))
    for group in expected["groups"]:
        for one in group["rules"]:
            anchor = one["annotations"]["runbook_url"].split("#")[1]
            one["annotations"]["runbook_url"] = f"https://git.example.com/portcullis/docs/operations/runbooks.md#{anchor}"
    check(rule["spec"] == expected, "the rules of the chart differ from packaging/prometheus/alerts.yaml")
    dashboards = [one["data"]["portcullis.json"] for one in of_kind(manifests, "ConfigMap")]
    expected = json.load(open("packaging/grafana/portcullis.json"))
    check([json.loads(text) for text in dashboards] == [expected], "the dashboard of the chart differs")


def check_checksum():
    """With restartOnChange, another configuration makes other pods; without it, the running pods take it over."""
    def template(*arguments):
        return server_of(rendered("--values", f"{CHART}/ci/sqlite.yaml", *arguments))[0]["spec"]["template"]
    change = ["--set-string", "config.toml=public_url = \"https://other.example.com\""]
    check(template() == template(*change), "a change of the configuration replaces pods that would take it over")
    restart = ["--set", "config.restartOnChange=true"]
    check(template(*restart) != template(*restart, *change), "restartOnChange: the pods stay as they are")


# Wrong values: what is set beside a good file of values, and a part of the message.
WRONG = [
    ("sqlite", "replicas=2", "SQLite allows one replica"),
    ("sqlite", "autoscaling.enabled=true", "SQLite allows one replica"),
    ("sqlite", "config.toml=", "set config.toml"),
    ("sqlite", "config.existingSecret=x", "set one of them"),
    ("sqlite", "secrets.existingSecret=x", "set one of them"),
    ("sqlite", "secrets.keys.clientSecret=other", "which secrets.values does not have"),
    ("sqlite", "database.postgresql.existingSecret=x", "database.engine is sqlite"),
    ("sqlite", "database.engine=mysql", "/database/engine"),
    ("sqlite", "database.engine=postgresql", "name a Secret with the URL"),
    ("sqlite", "database.sqlite.size=4", "/database/sqlite/size"),
    ("sqlite", "database.sqlite.accessModes={ReadWriteMany}", "accessModes"),
    ("sqlite", "ingress.enabled=true", "ingress.host"),
    ("sqlite", "httpRoute.enabled=true", "name the Gateway"),
    ("sqlite", "admin.enabled=false,serviceMonitor.enabled=true", "Set admin.enabled"),
    ("sqlite", "admin.port=8000", "public listener's"),
    ("sqlite", "admin.url=http://mcp-admin.example.com", "/admin/url"),
    ("sqlite", "networkPolicy.adminFrom[0]=null", "/networkPolicy/adminFrom/0"),
    ("sqlite", "shutdownDelaySeconds=20", "at least shutdownDelaySeconds and 15"),
    ("sqlite", "shutdownDelaySeconds=90", "/shutdownDelaySeconds"),
    ("sqlite", "replica=1", "replica"),
    ("sqlite", "image.pullPolicy=Sometimes", "pullPolicy"),
    ("sqlite", "image.digest=sha256:1", "digest"),
    ("sqlite", "service.type=ExternalName", "/service/type"),
    ("sqlite", "resources.cpu=1", "resources"),
    ("sqlite", "extraEnv[0].nme=X", "extraEnv"),
    ("postgresql", "secrets.keys.secretKey=", "share one secret key"),
    ("postgresql", "secrets.existingSecret=", "names a key of no Secret"),
    ("postgresql", "database.sqlite.existingClaim=x", "database.engine is postgresql"),
    ("postgresql", "ingress.host=mcp-admin.example.com", "never reached there"),
    ("autoscaled-gateway-api", "autoscaling.maxReplicas=1", "less than autoscaling.minReplicas"),
    ("autoscaled-gateway-api", "httpRoute.hostnames=null", "set the host of public_url"),
]


def check_wrong_values():
    for values, wrong, message in WRONG:
        result = helm("template", "mcp", CHART, "--kube-version", "1.37.0", "--values", f"{CHART}/ci/{values}.yaml", "--set", wrong)
        check(result.returncode != 0, f"{wrong} is accepted")
        check(message in errors(result), f"{wrong}: not {message!r} but {errors(result)}")
    old = helm("template", "mcp", CHART, "--kube-version", "1.28.0", "--values", f"{CHART}/ci/sqlite.yaml")
    check("incompatible with Kubernetes" in errors(old), "Kubernetes 1.28 is not refused")
    return len(WRONG)


# The real binary


class Mounted:
    """What a pod finds: its volumes as the kubelet mounts Secrets (a link `..data` that is replaced), below a folder."""

    def __init__(self, manifests, folder):
        self.folder = pathlib.Path(folder)
        self.deployment, self.container = server_of(manifests)
        pod = self.deployment["spec"]["template"]["spec"]
        secrets = {one["metadata"]["name"]: one["stringData"] for one in of_kind(manifests, "Secret")}
        self.env = {one["name"]: one["value"] for one in self.container["env"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for mount in self.container["volumeMounts"]:
            volume = volumes[mount["name"]]
            place = self.inside(mount["mountPath"])
            place.mkdir(parents=True)
            if "secret" in volume:
                name = volume["secret"]["secretName"]
                self.mount(place, mount["mountPath"], secrets.get(name, {}), volume["secret"]["defaultMode"])
            elif os.geteuid() == 0:
                os.chown(place, 0, USER)
                place.chmod(0o2770)  # as fsGroup makes a volume

    def inside(self, path):
        return self.folder / path.lstrip("/")

    def mount(self, place, path, data, mode):
        data = dict(data)
        for variable, value in self.env.items():
            # Secrets of the operator, which the chart only names.
            if variable.endswith("_FILE") and os.path.dirname(value) == path:
                is_url = variable == "PORTCULLIS_DATABASE_URL_FILE"
                secret = "postgres://portcullis:secret@db/portcullis" if is_url else "a-secret-of-0123456789-0123456789"
                data.setdefault(os.path.basename(value), secret)
        if path == "/etc/portcullis/config":
            elsewhere = "PORTCULLIS_UPSTREAM__CLIENT_SECRET_FILE" in self.env
            secret = "" if elsewhere else 'client_secret = "of the file"\n'
            data.setdefault("portcullis.toml", TOML.replace("[upstream]\n", f"[upstream]\n{secret}"))
        version = place / "..2026"
        version.mkdir()
        for name, text in data.items():
            (version / name).write_text(text)
            (version / name).chmod(mode)
            if os.geteuid() == 0:
                os.chown(version / name, 0, USER)
            (place / name).symlink_to(f"..data/{name}")
        (place / "..data").symlink_to(version.name)

    def run(self, *arguments, **changed):
        env = {name: self.rooted(value) for name, value in (self.env | changed).items()}
        command = [PORTCULLIS, *map(self.rooted, arguments)]
        as_user = {"user": USER, "group": USER, "extra_groups": []} if os.geteuid() == 0 else {}
        work = self.inside(self.container.get("workingDir", "/"))
        return subprocess.Popen(command, env=env, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **as_user)

    def rooted(self, text):
        """The same path below the folder."""
        for mount in ("/etc/portcullis/", "/data/"):
            if text.startswith(mount):
                return str(self.inside(text))
        return text.replace("sqlite:///data/", f"sqlite://{self.folder}/data/")


def check_configuration(name, manifests, folder):
    """`portcullis config check` accepts what the pod gets, and `config show` says that the chart's settings apply."""
    mounted = Mounted(manifests, folder)
    (config,) = [mounted.container["args"][mounted.container["args"].index("--config") + 1]]
    # HTTPS_PROXY and SSL_CERT_FILE of the example lead to things that are not here.
    elsewhere = {"SSL_CERT_FILE": ""} if "SSL_CERT_FILE" in mounted.env else {}
    checked = mounted.run("config", "check", "--config", config, **elsewhere)
    text, _ = checked.communicate(timeout=60)
    check("is a valid configuration" in text, f"{name}: config check: {text}")
    shown, _ = mounted.run("config", "show", "--config", config, **elsewhere).communicate(timeout=60)
    for variable in ("PORTCULLIS_LISTEN", "PORTCULLIS_ADMIN__LISTEN", "PORTCULLIS_LIMITS__SHUTDOWN_DELAY"):
        value = mounted.env.get(variable)
        check(value is None or f'"{value}"' in shown, f"{name}: {value} of {variable} is not in force: {shown}")


def check_that_the_binary_bites(folder):
    manifests = rendered("--values", f"{CHART}/ci/sqlite.yaml", "--set-string", 'config.toml=public_url = "https://x.example"')
    checked = Mounted(manifests, folder).run("config", "check", "--config", "/etc/portcullis/config/portcullis.toml")
    text, _ = checked.communicate(timeout=60)
    check(checked.returncode != 0 and "upstream" in text, f"config check accepts half a configuration: {text}")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def status(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as answered:
        return answered.code
    except OSError:
        return None


def check_server(folder):
    """The server of the smallest installation starts as the pod starts it, answers the probes and ends in time."""
    mounted = Mounted(rendered("--values", f"{CHART}/ci/sqlite.yaml"), folder)
    ports = {port["name"]: free_port() for port in mounted.container["ports"]}
    listens = {
        "PORTCULLIS_LISTEN": f"127.0.0.1:{ports['public']}",
        "PORTCULLIS_ADMIN__LISTEN": f"127.0.0.1:{ports['admin']}",
        "PORTCULLIS_LIMITS__SHUTDOWN_DELAY": "2s",
    }
    server = mounted.run(*mounted.container["args"], **listens)
    try:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = mounted.container[probe]["httpGet"]
            url = f"http://127.0.0.1:{ports[asked['port']]}{asked['path']}"
            patience = time.monotonic() + 60
            while (answered := status(url)) != 200 and time.monotonic() < patience and server.poll() is None:
                time.sleep(0.1)
            check(answered == 200, f"the {probe} gets {answered}")
        check(status(f"http://127.0.0.1:{ports['admin']}/metrics") == 200, "no metrics on the admin port")
        check(status(f"http://127.0.0.1:{ports['public']}/metrics") == 404, "metrics on the public port")
        begun = time.monotonic()
        server.send_signal(signal.SIGTERM)
        url = f"http://127.0.0.1:{ports['public']}/ready"
        check(any(status(url) == 503 or time.sleep(0.1) for _ in range(15)), "/ready stays 200 after SIGTERM")
        server.wait(timeout=30)
        took = time.monotonic() - begun
        check(server.returncode == 0 and took < 2 + 15, f"it ended with {server.returncode} after {took:.1f} s")
        written = sorted(path.name for path in mounted.inside("/data").iterdir())
        check("portcullis.db" in written and "portcullis.key" in written, f"/data has {written}")
        return took
    finally:
        if server.poll() is None:
            server.kill()
        log, _ = server.communicate()
        if failures:
            print(log, file=sys.stderr)


def check_package(folder):
    """What helm packages has files instead of links, and renders the same."""
    result = helm("package", CHART, "--destination", folder)
    check(result.returncode == 0, errors(result))
    (package,) = pathlib.Path(folder).glob("*.tgz")
    with tarfile.open(package) as archive:
        names = {member.name: member for member in archive.getmembers()}
    for name in ("portcullis/files/alerts.yaml", "portcullis/files/portcullis.json"):
        check(name in names and names[name].isfile() and names[name].size > 1000, f"{name} is not in the package")
    check(not any("/ci/" in name for name in names), "the package has the values of the tests")
    values = ["--values", f"{CHART}/ci/postgresql.yaml"]
    check(rendered(*values) == rendered(*values, chart=str(package)), "the package renders something else")


def main():
    begun = time.monotonic()
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="portcullis-chart-"))
    scratch.chmod(0o755)
    folders = (scratch / str(number) for number in range(1000))

    def folder():
        new = next(folders)
        new.mkdir()
        return str(new)

    try:
        count = 0
        for values in sorted(pathlib.Path(CHART, "ci").glob("*.yaml")):
            linted = helm("lint", "--strict", CHART, "--values", str(values))
            check(linted.returncode == 0, linted.stdout + errors(linted))
            for kubernetes in KUBERNETES:
                manifests = rendered("--values", str(values), kubernetes=kubernetes)
                check_schemas(values.stem, manifests, kubernetes)
                count += len(manifests)
            for problem in api_server_problems(manifests):
                check(False, f"{values.stem}: {problem}")
            check_hardening(values.stem, manifests)
            check_admin(values.stem, manifests)
            check_replicas(values.stem, manifests)
            check_configuration(values.stem, manifests, folder())
        print(f"{count} manifests fit the schemas of Kubernetes {' and '.join(KUBERNETES)}")
        check_that_schemas_bite()
        check_that_the_api_server_bites()
        check_rules()
        check_checksum()
        print(f"{check_wrong_values()} wrong values are refused")
        check_that_the_binary_bites(folder())
        print(f"the server answered its probes, and ended {check_server(folder()):.1f} s after SIGTERM")
        check_package(folder())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for failure in failures:
        print(f"FAILED {failure}", file=sys.stderr)
    print(f"{len(failures)} failures, {time.monotonic() - begun:.0f} s")
    sys.exit(bool(failures))


main()
