package main

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	appsv1apply "k8s.io/client-go/applyconfigurations/apps/v1"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	metav1apply "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/pager"
)

// reviews asks what is created and not stored.
func reviews(ctx context.Context, clients *encodings) {
	for name, config := range clients.each() {
		client := kubernetes.NewForConfigOrDie(config)
		who, err := client.AuthenticationV1().SelfSubjectReviews().
			Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err == nil && who.Status.UserInfo.Username == "" {
			err = fmt.Errorf("no user name")
		}
		check(name+"/SelfSubjectReview", err)
		access := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: "nobody", ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "get", Resource: "secrets"},
		}}
		access, err = client.AuthorizationV1().SubjectAccessReviews().Create(ctx, access, metav1.CreateOptions{})
		if err == nil && access.Status.Allowed {
			err = fmt.Errorf("nobody may read secrets")
		}
		check(name+"/SubjectAccessReview", err)
		rules := &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace}}
		rules, err = client.AuthorizationV1().SelfSubjectRulesReviews().Create(ctx, rules, metav1.CreateOptions{})
		if err == nil && len(rules.Status.ResourceRules) == 0 {
			err = fmt.Errorf("no rules")
		}
		check(name+"/SelfSubjectRulesReview", err)
		check(name+"/TokenRequest", token(ctx, client))
	}
}

// token asks for a service account's token and has it reviewed.
func token(ctx context.Context, client kubernetes.Interface) error {
	hour := int64(3600)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &hour}}
	request, err := client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, "default", request, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: request.Status.Token}}
	review, err = client.AuthenticationV1().TokenReviews().Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if wanted := "system:serviceaccount:" + namespace + ":default"; review.Status.User.Username != wanted {
		return fmt.Errorf("the token is %+v's, not %s's", review.Status, wanted)
	}
	return nil
}

// typedApply applies as one manager, is refused as another, takes over, and gives a field up by leaving it out.
func typedApply(ctx context.Context, client kubernetes.Interface, name string) error {
	container := corev1apply.Container().WithName("a").WithImage("keelson.dev/pause:1").
		WithPorts(corev1apply.ContainerPort().WithContainerPort(80))
	deployment := func(replicas int32, labels map[string]string) *appsv1apply.DeploymentApplyConfiguration {
		return appsv1apply.Deployment(name, namespace).WithLabels(labels).WithSpec(appsv1apply.DeploymentSpec().
			WithReplicas(replicas).
			WithSelector(metav1apply.LabelSelector().WithMatchLabels(map[string]string{"a": name})).
			WithTemplate(corev1apply.PodTemplateSpec().WithLabels(map[string]string{"a": name}).
				WithSpec(corev1apply.PodSpec().WithNodeSelector(map[string]string{"nothing": "here"}).WithContainers(container))))
	}
	deployments := client.AppsV1().Deployments(namespace)
	first := metav1.ApplyOptions{FieldManager: "first"}
	if _, err := deployments.Apply(ctx, deployment(0, map[string]string{"one": "1", "two": "2"}), first); err != nil {
		return fmt.Errorf("first: %w", err)
	}
	second := metav1.ApplyOptions{FieldManager: "second"}
	if _, err := deployments.Apply(ctx, deployment(1, nil), second); !errors.IsConflict(err) {
		return fmt.Errorf("a second manager was not refused: %v", err)
	}
	second.Force = true
	if _, err := deployments.Apply(ctx, deployment(1, nil), second); err != nil {
		return fmt.Errorf("forced: %w", err)
	}
	applied, err := deployments.Apply(ctx, deployment(1, map[string]string{"one": "1"}), first)
	if err != nil {
		return fmt.Errorf("again: %w", err)
	}
	if _, there := applied.Labels["two"]; there || applied.Labels["one"] != "1" || *applied.Spec.Replicas != 1 {
		return fmt.Errorf("labels %v, replicas %d", applied.Labels, *applied.Spec.Replicas)
	}
	live, err := deployments.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	extracted, err := appsv1apply.ExtractDeployment(live, "first")
	if err != nil {
		return fmt.Errorf("extract: %w", err)
	}
	if len(extracted.Labels) != 1 || len(extracted.Spec.Template.Spec.Containers) != 1 {
		return fmt.Errorf("extracted %v", extracted)
	}
	service := corev1apply.Service(name, namespace).WithSpec(corev1apply.ServiceSpec().
		WithPorts(corev1apply.ServicePort().WithPort(80).WithTargetPort(intstr.FromString("http"))))
	if _, err := client.CoreV1().Services(namespace).Apply(ctx, service, first); err != nil {
		return fmt.Errorf("service: %w", err)
	}
	scaled, err := deployments.GetScale(ctx, name, metav1.GetOptions{})
	if err != nil || scaled.Spec.Replicas != 1 {
		return fmt.Errorf("scale %v: %w", scaled, err)
	}
	return nil
}

// pages lists seven objects two at a time.
func pages(ctx context.Context, client kubernetes.Interface, prefix string) error {
	maps := client.CoreV1().ConfigMaps(namespace)
	for i := range 7 {
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("%s-%d", prefix, i), Labels: map[string]string{"page": prefix},
		}}
		if _, err := maps.Create(ctx, object, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	asked, seen := 0, 0
	list := pager.New(pager.SimplePageFunc(func(options metav1.ListOptions) (runtime.Object, error) {
		asked++
		return maps.List(ctx, options)
	}))
	list.PageSize = 2
	err := list.EachListItem(ctx, metav1.ListOptions{LabelSelector: "page=" + prefix}, func(runtime.Object) error {
		seen++
		return nil
	})
	if err == nil && (seen != 7 || asked != 4) {
		err = fmt.Errorf("%d objects in %d pages", seen, asked)
	}
	return err
}

// informer sees an object made, changed and deleted, and its store follows.
func informer(ctx context.Context, client kubernetes.Interface, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace))
	maps := factory.Core().V1().ConfigMaps()
	told := make(chan string, 16)
	say := func(what string, object any) {
		if object.(*corev1.ConfigMap).Name == name {
			told <- what
		}
	}
	_, err := maps.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { say("added", object) },
		UpdateFunc: func(_, object any) { say("updated", object) },
		DeleteFunc: func(object any) { say("deleted", object) },
	})
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return fmt.Errorf("%v never synced", kind)
		}
	}
	wait := func(wanted string) error {
		select {
		case what := <-told:
			if what != wanted {
				return fmt.Errorf("told %s instead of %s", what, wanted)
			}
			return nil
		case <-ctx.Done():
			return fmt.Errorf("never told %s", wanted)
		}
	}
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if object, err = client.CoreV1().ConfigMaps(namespace).Create(ctx, object, metav1.CreateOptions{}); err != nil {
		return err
	}
	if err := wait("added"); err != nil {
		return err
	}
	object.Data = map[string]string{"a": "b"}
	if _, err := client.CoreV1().ConfigMaps(namespace).Update(ctx, object, metav1.UpdateOptions{}); err != nil {
		return err
	}
	if err := wait("updated"); err != nil {
		return err
	}
	if stored, err := maps.Lister().ConfigMaps(namespace).Get(name); err != nil || stored.Data["a"] != "b" {
		return fmt.Errorf("the store holds %v: %w", stored, err)
	}
	if err := client.CoreV1().ConfigMaps(namespace).Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return err
	}
	return wait("deleted")
}

// election lets two candidates want one lease: one leads, and when it steps down the other does.
func election(ctx context.Context, client kubernetes.Interface, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	leading := make(chan string, 2)
	stops := map[string]context.CancelFunc{}
	for _, candidate := range []string{"a", "b"} {
		run, stop := context.WithCancel(ctx)
		stops[candidate] = stop
		lock := &resourcelock.LeaseLock{
			LeaseMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}, Client: client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: candidate},
		}
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: lock, LeaseDuration: 3 * time.Second, RenewDeadline: 2 * time.Second, RetryPeriod: 500 * time.Millisecond,
			ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) { leading <- candidate },
				OnStoppedLeading: func() {},
			},
		})
		if err != nil {
			return err
		}
		go elector.Run(run)
	}
	next := func() (string, error) {
		select {
		case candidate := <-leading:
			lease, err := client.CoordinationV1().Leases(namespace).Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return "", err
			}
			if lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity != candidate {
				return "", fmt.Errorf("%s leads, the lease is %v's", candidate, lease.Spec.HolderIdentity)
			}
			return candidate, nil
		case <-ctx.Done():
			return "", fmt.Errorf("nobody leads")
		}
	}
	first, err := next()
	if err != nil {
		return err
	}
	select {
	case second := <-leading:
		return fmt.Errorf("%s leads while %s does", second, first)
	case <-time.After(time.Second):
	}
	stops[first]()
	second, err := next()
	if err == nil && second == first {
		err = fmt.Errorf("%s leads again", first)
	}
	return err
}
