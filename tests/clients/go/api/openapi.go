package main

import (
	"fmt"
	"reflect"

	openapiv3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/openapi"
	"sigs.k8s.io/yaml"
)

// openAPIAsProtobuf reads every OpenAPI v3 document as JSON and as protobuf: gnostic makes the same of both.
func openAPIAsProtobuf(client discovery.DiscoveryInterface) error {
	paths, err := client.OpenAPIV3().Paths()
	if err != nil {
		return err
	}
	if len(paths) < 30 {
		return fmt.Errorf("%d documents", len(paths))
	}
	for path, document := range paths {
		text, err := document.Schema("application/json")
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		parsed, err := openapiv3.ParseDocument(text)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		packed, err := document.Schema(openapi.ContentTypeOpenAPIV3PB)
		if err != nil {
			return fmt.Errorf("%s as protobuf: %w", path, err)
		}
		var unpacked openapiv3.Document
		if err := proto.Unmarshal(packed, &unpacked); err != nil {
			return fmt.Errorf("%s as protobuf: %w", path, err)
		}
		if len(unpacked.ProtoReflect().GetUnknown()) != 0 {
			return fmt.Errorf("%s as protobuf holds what no document has", path)
		}
		want, err := plain(parsed)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		have, err := plain(&unpacked)
		if err != nil {
			return fmt.Errorf("%s as protobuf: %w", path, err)
		}
		if at := difference("", want, have); at != "" {
			return fmt.Errorf("%s as protobuf differs at %s", path, at)
		}
	}
	return nil
}

func plain(document *openapiv3.Document) (any, error) {
	text, err := document.YAMLValue("")
	if err != nil {
		return nil, err
	}
	var value any
	err = yaml.Unmarshal(text, &value)
	return value, err
}

// difference names the first place where two values differ, and both; nothing when they are equal.
func difference(at string, want, have any) string {
	if reflect.DeepEqual(want, have) {
		return ""
	}
	one, both := want.(map[string]any)
	other, also := have.(map[string]any)
	if !both || !also {
		return fmt.Sprintf("%s: %.200v, as protobuf %.200v", at, want, have)
	}
	for key := range one {
		if found := difference(at+"/"+key, one[key], other[key]); found != "" {
			return found
		}
	}
	return fmt.Sprintf("%s: more keys as protobuf", at)
}
