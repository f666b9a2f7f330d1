// Command chartvalidate checks manifests as the API server of Kubernetes does when they are created: it reads them
// strictly, sets defaults, and runs the validation of their kinds. It also checks pods against the Pod Security Standard
// "restricted". Kinds of custom resources are left to their schemas.
//
//	chartvalidate < manifests.yaml
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	_ "k8s.io/kubernetes/pkg/apis/autoscaling/install"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	"k8s.io/kubernetes/pkg/registry/apps/deployment"
	"k8s.io/kubernetes/pkg/registry/autoscaling/horizontalpodautoscaler"
	"k8s.io/kubernetes/pkg/registry/core/configmap"
	"k8s.io/kubernetes/pkg/registry/core/persistentvolumeclaim"
	"k8s.io/kubernetes/pkg/registry/core/pod"
	"k8s.io/kubernetes/pkg/registry/core/secret"
	"k8s.io/kubernetes/pkg/registry/core/service"
	"k8s.io/kubernetes/pkg/registry/core/serviceaccount"
	"k8s.io/kubernetes/pkg/registry/networking/ingress"
	"k8s.io/kubernetes/pkg/registry/networking/networkpolicy"
	"k8s.io/kubernetes/pkg/registry/policy/poddisruptionbudget"
	podsecurity "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// Where the chart is installed; rendered manifests name no namespace.
const namespace = "access"

var strategies = map[string]rest.RESTCreateStrategy{
	"ConfigMap":               configmap.Strategy,
	"Deployment":              deployment.Strategy,
	"HorizontalPodAutoscaler": horizontalpodautoscaler.Strategy,
	"Ingress":                 ingress.Strategy,
	"NetworkPolicy":           networkpolicy.Strategy,
	"PersistentVolumeClaim":   persistentvolumeclaim.Strategy,
	"Pod":                     pod.Strategy,
	"PodDisruptionBudget":     poddisruptionbudget.Strategy,
	"Secret":                  secret.Strategy,
	"Service":                 service.Strategy,
	"ServiceAccount":          serviceaccount.Strategy,
}

var strict = serializer.NewCodecFactory(legacyscheme.Scheme, serializer.EnableStrict).UniversalDeserializer()

func main() {
	manifests := yaml.NewYAMLReader(bufio.NewReader(os.Stdin))
	checked, failed := 0, 0
	for {
		manifest, err := manifests.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			fail(&failed, "", err)
			break
		}
		object, kind, err := strict.Decode(manifest, nil, nil)
		if runtime.IsNotRegisteredError(err) {
			continue // a custom resource
		}
		if runtime.IsMissingKind(err) && !meaningful(manifest) {
			continue
		}
		if err != nil {
			fail(&failed, fmt.Sprint(kind), err)
			continue
		}
		checked++
		for _, problem := range check(object, kind.Kind) {
			fail(&failed, kind.Kind, problem)
		}
	}
	fmt.Printf("%d checked\n", checked)
	if failed > 0 || checked == 0 {
		os.Exit(1)
	}
}

func fail(failed *int, kind string, problem error) {
	*failed++
	fmt.Printf("%s: %v\n", kind, problem)
}

// meaningful says whether a document of YAML has more than comments.
func meaningful(document []byte) bool {
	var value any
	return yaml.Unmarshal(document, &value) != nil || value != nil
}

func check(object runtime.Object, kind string) (problems []error) {
	strategy := strategies[kind]
	if strategy == nil {
		return []error{errors.New("nothing here validates this kind")}
	}
	problems = podSecurity(object)
	legacyscheme.Scheme.Default(object)
	internal, err := legacyscheme.Scheme.ConvertToVersion(object, runtime.InternalGroupVersioner)
	if err != nil {
		return append(problems, err)
	}
	accessor, err := meta.Accessor(internal)
	if err != nil {
		return append(problems, err)
	}
	accessor.SetNamespace(namespace)
	rest.FillObjectMetaSystemFields(accessor)
	ctx := request.WithNamespace(context.Background(), namespace)
	ctx = request.WithRequestInfo(ctx, &request.RequestInfo{IsResourceRequest: true, Verb: "create", Namespace: namespace})
	if err := rest.BeforeCreate(strategy, ctx, internal); err != nil {
		problems = append(problems, err)
	}
	// What kubectl would warn of.
	for _, warning := range strategy.WarningsOnCreate(ctx, internal) {
		problems = append(problems, errors.New(warning))
	}
	return problems
}

func podSecurity(object runtime.Object) (problems []error) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks())
	if err != nil {
		return []error{err}
	}
	level := podsecurity.LevelVersion{Level: podsecurity.LevelRestricted, Version: podsecurity.LatestVersion()}
	var results []policy.CheckResult
	switch object := object.(type) {
	case *corev1.Pod:
		results = evaluator.EvaluatePod(level, &object.ObjectMeta, &object.Spec)
	case *appsv1.Deployment:
		results = evaluator.EvaluatePod(level, &object.Spec.Template.ObjectMeta, &object.Spec.Template.Spec)
	}
	for _, result := range results {
		if !result.Allowed {
			problems = append(problems, fmt.Errorf("not restricted: %s: %s", result.ForbiddenReason, result.ForbiddenDetail))
		}
	}
	return problems
}
