package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	_ "embed"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kubejson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	kubeprotobuf "k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	apitypes "k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

//go:embed objects.yaml
var objects string

// encodings are two configurations that differ in what bodies are sent and asked for.
type encodings struct{ json, protobuf *rest.Config }

// each is both, under their names.
func (e *encodings) each() map[string]*rest.Config {
	return map[string]*rest.Config{"json": e.json, "protobuf": e.protobuf}
}

// kind is one type that the server stores.
type kind struct {
	schema.GroupVersionKind
	resource   string
	namespaced bool
	verbs      map[string]bool
}

func (k kind) client(config *rest.Config) (*rest.RESTClient, error) {
	config = rest.CopyConfig(config)
	group := k.GroupVersion()
	config.GroupVersion = &group
	config.APIPath = "/apis"
	if k.Group == "" {
		config.APIPath = "/api"
	}
	config.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	return rest.RESTClientFor(config)
}

func (k kind) place(request *rest.Request) *rest.Request {
	return request.NamespaceIfScoped(namespace, k.namespaced).Resource(k.resource)
}

// kinds are what discovery says can be created and read.
func kinds(config *rest.Config) ([]kind, error) {
	client, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, err
	}
	_, lists, err := client.ServerGroupsAndResources()
	if err != nil {
		return nil, err
	}
	var found []kind
	for _, list := range lists {
		group, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, err
		}
		for _, resource := range list.APIResources {
			k := kind{group.WithKind(resource.Kind), resource.Name, resource.Namespaced, map[string]bool{}}
			for _, verb := range resource.Verbs {
				k.verbs[verb] = true
			}
			// A type of the client, not one that a definition brought.
			known := scheme.Scheme.Recognizes(k.GroupVersionKind)
			if known && k.verbs["create"] && k.verbs["get"] && !strings.Contains(resource.Name, "/") {
				found = append(found, k)
			}
		}
	}
	return found, nil
}

// samples are the embedded objects by type.
func samples() (map[schema.GroupVersionKind]runtime.Object, error) {
	decoder := kubejson.NewSerializerWithOptions(kubejson.DefaultMetaFactory, scheme.Scheme, scheme.Scheme,
		kubejson.SerializerOptions{Yaml: true, Strict: true})
	found := map[schema.GroupVersionKind]runtime.Object{}
	for _, text := range strings.Split(objects, "\n---\n") {
		object, kind, err := decoder.Decode([]byte(strings.ReplaceAll(text, "NAMESPACE", namespace)), nil, nil)
		if err != nil {
			return nil, fmt.Errorf("%w in:\n%s", err, text)
		}
		if request, ok := object.(*certificatesv1.CertificateSigningRequest); ok {
			if request.Spec.Request, err = certificateRequest(); err != nil {
				return nil, err
			}
		}
		found[*kind] = object
	}
	return found, nil
}

func certificateRequest() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "x"}}
	request, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}), err
}

// everyType tries every type over both encodings.
func everyType(ctx context.Context, clients *encodings) {
	kinds, err := kinds(clients.json)
	if !check("discovery", err) {
		return
	}
	objects, err := samples()
	if !check("samples", err) {
		return
	}
	for _, kind := range kinds {
		object, ok := objects[kind.GroupVersionKind]
		name := kind.GroupVersion().String() + "/" + kind.Kind
		if !ok {
			check(name, fmt.Errorf("the server has this type, and objects.yaml no object of it"))
			continue
		}
		delete(objects, kind.GroupVersionKind)
		for _, encoding := range []string{"json", "protobuf"} {
			t := trial{kind: kind, clients: clients, writer: clients.each()[encoding]}
			step, err := t.run(ctx, object.DeepCopyObject())
			if err != nil {
				err = fmt.Errorf("%s: %w", step, err)
			}
			check(encoding+"/"+name, err)
		}
	}
	for kind := range objects {
		check(kind.String(), fmt.Errorf("the server lacks this type"))
	}
}

// trial is one type written through one encoding and read through both.
type trial struct {
	kind
	clients *encodings
	writer  *rest.Config
}

// run returns what it was at when something was wrong.
func (t *trial) run(ctx context.Context, object runtime.Object) (string, error) {
	client, err := t.client(t.writer)
	if err != nil {
		return "client", err
	}
	accessor, err := meta.Accessor(object)
	if err != nil {
		return "object", err
	}
	name := accessor.GetName()
	events, stop, err := t.watch(ctx, name)
	if err != nil {
		return "watch", err
	}
	defer stop()
	// One that an earlier run left behind.
	if err := t.remove(ctx, client, name); err != nil {
		return "clean up", err
	}
	created := t.empty()
	if err := t.place(client.Post()).VersionedParams(&metav1.CreateOptions{FieldManager: "client-go"}, scheme.ParameterCodec).
		Body(object).Do(ctx).Into(created); err != nil {
		return "create", err
	}
	defer t.remove(context.WithoutCancel(ctx), client, name)
	if err := t.same(ctx, name); err != nil {
		return "read", err
	}
	if t.verbs["patch"] {
		if err := t.patches(ctx, client, name); err != nil {
			return "patch", err
		}
	}
	if t.verbs["update"] {
		if err := t.update(ctx, client, name); err != nil {
			return "update", err
		}
	}
	if err := t.list(ctx, name); err != nil {
		return "list", err
	}
	for encoding, events := range events {
		if err := t.sees(ctx, events, name); err != nil {
			return "watch over " + encoding, err
		}
	}
	return "delete", t.remove(ctx, client, name)
}

func (t *trial) empty() runtime.Object {
	object, err := scheme.Scheme.New(t.GroupVersionKind)
	if err != nil {
		panic(err)
	}
	return object
}

func (t *trial) remove(ctx context.Context, client *rest.RESTClient, name string) error {
	// The controller that takes this kind's finalizer off is not there yet.
	if t.Kind == "VolumeAttributesClass" {
		patch := []byte(`{"metadata":{"finalizers":null}}`)
		err := t.place(client.Patch(apitypes.MergePatchType)).Name(name).Body(patch).Do(ctx).Error()
		if err != nil && !errors.IsNotFound(err) {
			return err
		}
	}
	zero := int64(0)
	for range 100 {
		err := t.place(client.Delete()).Name(name).Body(&metav1.DeleteOptions{GracePeriodSeconds: &zero}).Do(ctx).Error()
		if errors.IsNotFound(err) {
			return nil
		}
		// A namespace that is going away says so again and again.
		if err != nil && !errors.IsConflict(err) {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("it is still there")
}

// same reads the object over both encodings: the client's types must hold all that the server sends, both must be the
// same object, and the protobuf must be byte for byte what the client would send.
func (t *trial) same(ctx context.Context, name string) error {
	var texts, bodies []byte
	for range 20 {
		var err error
		if texts, err = t.raw(ctx, t.clients.json, name); err != nil {
			return err
		}
		if bodies, err = t.raw(ctx, t.clients.protobuf, name); err != nil {
			return err
		}
		again, err := t.raw(ctx, t.clients.json, name)
		if err != nil {
			return err
		}
		// A controller wrote in between: once more.
		if bytes.Equal(texts, again) {
			break
		}
	}
	strict := kubejson.NewSerializerWithOptions(kubejson.DefaultMetaFactory, scheme.Scheme, scheme.Scheme,
		kubejson.SerializerOptions{Strict: true})
	fromJSON, _, err := strict.Decode(texts, nil, nil)
	if err != nil {
		return fmt.Errorf("json: %w", err)
	}
	serializer := kubeprotobuf.NewSerializer(scheme.Scheme, scheme.Scheme)
	fromProtobuf, _, err := serializer.Decode(bodies, nil, nil)
	if err != nil {
		return fmt.Errorf("protobuf: %w", err)
	}
	if err := t.sameJSON(texts, fromJSON.DeepCopyObject()); err != nil {
		return err
	}
	// The protobuf envelope carries the type, the object none; nor does a claim within another object.
	if set, ok := fromJSON.(*appsv1.StatefulSet); ok {
		for i := range set.Spec.VolumeClaimTemplates {
			set.Spec.VolumeClaimTemplates[i].TypeMeta = metav1.TypeMeta{}
		}
	}
	fromJSON.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	fromProtobuf.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	if !equality.Semantic.DeepEqual(fromJSON, fromProtobuf) {
		return fmt.Errorf("json and protobuf differ: %s", diff.Diff(fromJSON, fromProtobuf))
	}
	fromProtobuf.GetObjectKind().SetGroupVersionKind(t.GroupVersionKind)
	var own bytes.Buffer
	if err := serializer.Encode(fromProtobuf, &own); err != nil {
		return err
	}
	if !bytes.Equal(own.Bytes(), bodies) {
		return fmt.Errorf("protobuf is encoded otherwise than by the client: %d bytes %q, the client's %d bytes %q",
			len(bodies), bodies, own.Len(), own.Bytes())
	}
	return nil
}

// sameJSON compares the server's JSON with the client's, as values: no field more, none less.
func (t *trial) sameJSON(text []byte, object runtime.Object) error {
	object.GetObjectKind().SetGroupVersionKind(t.GroupVersionKind)
	own, err := json.Marshal(object)
	if err != nil {
		return err
	}
	var ours, theirs any
	if err := json.Unmarshal(text, &theirs); err != nil {
		return err
	}
	if err := json.Unmarshal(own, &ours); err != nil {
		return err
	}
	if !equality.Semantic.DeepEqual(ours, theirs) {
		return fmt.Errorf("json holds other fields than the client's: %s", diff.Diff(ours, theirs))
	}
	return nil
}

func (t *trial) raw(ctx context.Context, config *rest.Config, name string) ([]byte, error) {
	client, err := t.client(config)
	if err != nil {
		return nil, err
	}
	return t.place(client.Get()).Name(name).Do(ctx).Raw()
}

func (t *trial) patches(ctx context.Context, client *rest.RESTClient, name string) error {
	applied, err := json.Marshal(map[string]any{
		"apiVersion": t.GroupVersion().String(), "kind": t.Kind,
		"metadata": map[string]any{"name": name, "annotations": map[string]string{"applied": "1"}},
	})
	if err != nil {
		return err
	}
	for _, patch := range []struct {
		kind   apitypes.PatchType
		body   string
		wanted string
	}{
		{apitypes.MergePatchType, `{"metadata":{"labels":{"merge":"1"}}}`, "merge"},
		{apitypes.StrategicMergePatchType, `{"metadata":{"labels":{"strategic":"1"}}}`, "strategic"},
		{apitypes.JSONPatchType, `[{"op":"add","path":"/metadata/labels/json","value":"1"}]`, "json"},
		{apitypes.ApplyYAMLPatchType, string(applied), "applied"},
	} {
		request := t.place(client.Patch(patch.kind)).Name(name).Body([]byte(patch.body))
		if patch.kind == apitypes.ApplyYAMLPatchType {
			request = request.Param("fieldManager", "client-go-apply")
		}
		patched := t.empty()
		if err := request.Do(ctx).Into(patched); err != nil {
			return fmt.Errorf("%s: %w", patch.kind, err)
		}
		accessor, err := meta.Accessor(patched)
		if err != nil {
			return err
		}
		if accessor.GetLabels()[patch.wanted]+accessor.GetAnnotations()[patch.wanted] != "1" {
			return fmt.Errorf("%s: the answer lacks the change", patch.kind)
		}
	}
	return nil
}

// update puts back what was read, with a label more.
func (t *trial) update(ctx context.Context, client *rest.RESTClient, name string) error {
	for {
		object := t.empty()
		if err := t.place(client.Get()).Name(name).Do(ctx).Into(object); err != nil {
			return err
		}
		accessor, err := meta.Accessor(object)
		if err != nil {
			return err
		}
		labels := accessor.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		labels["updated"] = "1"
		accessor.SetLabels(labels)
		updated := t.empty()
		err = t.place(client.Put()).Name(name).Body(object).Do(ctx).Into(updated)
		if errors.IsConflict(err) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return err
		}
		if accessor, err = meta.Accessor(updated); err != nil {
			return err
		}
		if accessor.GetLabels()["updated"] != "1" {
			return fmt.Errorf("the answer lacks the label")
		}
		return nil
	}
}

func (t *trial) list(ctx context.Context, name string) error {
	for encoding, config := range t.clients.each() {
		client, err := t.client(config)
		if err != nil {
			return err
		}
		list, err := t.place(client.Get()).VersionedParams(&metav1.ListOptions{LabelSelector: "updated=1"}, scheme.ParameterCodec).
			Do(ctx).Get()
		if err != nil {
			return fmt.Errorf("%s: %w", encoding, err)
		}
		items, err := meta.ExtractList(list)
		if err != nil {
			return err
		}
		if len(items) != 1 {
			return fmt.Errorf("%s: %d items instead of 1", encoding, len(items))
		}
		accessor, err := meta.Accessor(items[0])
		if err != nil {
			return err
		}
		if accessor.GetName() != name {
			return fmt.Errorf("%s: found %s", encoding, accessor.GetName())
		}
	}
	return nil
}

// watch opens a watch over each encoding.
func (t *trial) watch(ctx context.Context, name string) (map[string]watch.Interface, func(), error) {
	watches := map[string]watch.Interface{}
	stop := func() {
		for _, watch := range watches {
			watch.Stop()
		}
	}
	for encoding, config := range t.clients.each() {
		client, err := t.client(config)
		if err != nil {
			return nil, stop, err
		}
		events, err := t.place(client.Get()).VersionedParams(&metav1.ListOptions{Watch: true, FieldSelector: "metadata.name=" + name}, scheme.ParameterCodec).
			Watch(ctx)
		if err != nil {
			stop()
			return nil, stop, fmt.Errorf("%s: %w", encoding, err)
		}
		watches[encoding] = events
	}
	return watches, stop, nil
}

// sees waits for the object's addition and the update's label.
func (t *trial) sees(ctx context.Context, events watch.Interface, name string) error {
	added := false
	timeout := time.After(10 * time.Second)
	for {
		select {
		case event, open := <-events.ResultChan():
			if !open {
				return fmt.Errorf("the watch ended")
			}
			if event.Type == watch.Error {
				return errors.FromObject(event.Object)
			}
			accessor, err := meta.Accessor(event.Object)
			if err != nil {
				return err
			}
			if accessor.GetName() != name {
				return fmt.Errorf("an event of %s", accessor.GetName())
			}
			added = added || event.Type == watch.Added
			if accessor.GetLabels()["updated"] == "1" {
				if !added {
					return fmt.Errorf("no event tells of the creation")
				}
				return nil
			}
		case <-timeout:
			return fmt.Errorf("no event tells of the update (creation told: %v)", added)
		}
	}
}
