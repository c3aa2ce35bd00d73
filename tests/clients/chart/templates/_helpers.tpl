{{- define "twenty.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
{{- define "twenty.pod" -}}
terminationGracePeriodSeconds: 1
containers:
- name: pause
  image: keelson.dev/pause:1
  env:
  - name: COLOR
    valueFrom: {configMapKeyRef: {name: twenty, key: color}}
{{- end }}
