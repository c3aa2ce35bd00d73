// Command api tries the API with client-go: every type that the server stores, over JSON and over protobuf, then
// informers, typed apply and leader election. It prints `ok NAME` or `FAILED NAME: reason` for each thing it tried.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const namespace = "client-go"

const protobuf = runtime.ContentTypeProtobuf

var failed bool

// check prints what came of one thing.
func check(name string, err error) bool {
	if err != nil {
		failed = true
		fmt.Printf("FAILED %s: %v\n", name, err)
		return false
	}
	fmt.Printf("ok %s\n", name)
	return true
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	base, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	base.QPS = -1
	base.WarningHandler = rest.NoWarnings{}
	clients := &encodings{json: with(base, runtime.ContentTypeJSON), protobuf: with(base, protobuf)}
	typed := kubernetes.NewForConfigOrDie(clients.protobuf)
	if err := freshNamespace(ctx, typed); err != nil {
		check("namespace", err)
		os.Exit(1)
	}
	everyType(ctx, clients)
	reviews(ctx, clients)
	check("OpenAPI v3 as protobuf", openAPIAsProtobuf(typed.Discovery()))
	for _, encoding := range []struct {
		name   string
		config *rest.Config
	}{{"json", clients.json}, {"protobuf", clients.protobuf}} {
		client := kubernetes.NewForConfigOrDie(encoding.config)
		check(encoding.name+"/typed apply", typedApply(ctx, client, "apply-"+encoding.name))
		check(encoding.name+"/pages", pages(ctx, client, "page-"+encoding.name))
		check(encoding.name+"/informer", informer(ctx, client, "informer-"+encoding.name))
		check(encoding.name+"/leader election", election(ctx, client, "leader-"+encoding.name))
	}
	err = typed.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{})
	check("namespace is deleted", err)
	if failed {
		os.Exit(1)
	}
}

func with(base *rest.Config, contentType string) *rest.Config {
	config := rest.CopyConfig(base)
	config.ContentType = contentType
	config.AcceptContentTypes = contentType
	return config
}

func freshNamespace(ctx context.Context, client kubernetes.Interface) error {
	err := client.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{})
	if err != nil && !errors.IsNotFound(err) {
		return err
	}
	return wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
		_, err := client.CoreV1().Namespaces().Create(ctx, object, metav1.CreateOptions{})
		if errors.IsAlreadyExists(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		return true, wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
			_, err := client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
			if errors.IsNotFound(err) {
				return false, nil
			}
			return err == nil, err
		})
	})
}
