{{/* Name of the chart's objects. */}}
{{- define "faceblur.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "faceblur.operator" -}}
{{- printf "%s-operator" (include "faceblur.fullname" .) -}}
{{- end -}}

{{/* Of everything. Nothing here may change what the operator's own labels mean: it finds its objects by managed-by. */}}
{{- define "faceblur.labels" -}}
app.kubernetes.io/part-of: faceblur
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "faceblur.selectorLabels" . }}
{{- end -}}

{{/* Never to be extended: a Deployment's selector cannot be changed. */}}
{{- define "faceblur.selectorLabels" -}}
app.kubernetes.io/name: faceblur
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "faceblur.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "faceblur.operator" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* An image's reference. Takes the image's values and the root. */}}
{{- define "faceblur.image" -}}
{{- $image := index . 0 -}}
{{- $root := index . 1 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* What restricted pods are asked for; the images' user is a number that is not root. */}}
{{- define "faceblur.podSecurityContext" -}}
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "faceblur.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Exactly what operator/faceblur_operator/kube.py says that it needs. */}}
{{- define "faceblur.rules" -}}
- apiGroups: [faceblur.io]
  resources: [faceblurclusters]
  verbs: [get, list, watch]
# A FaceBlurJob is deleted when its time to live after it finished is over.
- apiGroups: [faceblur.io]
  resources: [faceblurjobs]
  verbs: [get, list, watch, delete]
- apiGroups: [faceblur.io]
  resources: [faceblurclusters/status, faceblurjobs/status]
  verbs: [patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, serviceaccounts, configmaps]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [batch]
  resources: [jobs, cronjobs]
  verbs: [get, list, watch, create, patch, delete]
# Each planner may write the progress of its own FaceBlurJob. A role can only give away rights that its maker has.
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [keda.sh]
  resources: [scaledobjects, triggerauthentications]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [monitoring.coreos.com]
  resources: [servicemonitors, podmonitors]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [cert-manager.io]
  resources: [certificates]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# Only of their metadata, to tell whether the Secrets that a FaceBlurCluster names exist.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}
