// Nginx, scripted.
// The agent in the build's own container (agentInjection): an init container brings it there. Nothing of it needs Java.
podTemplate(agentContainer: 'c', agentInjection: true, yaml: '''
    apiVersion: v1
    kind: Pod
    spec:
      serviceAccountName: jenkins-agent
      # One user in all containers: they share the workspace.
      securityContext:
        runAsUser: 1000
        runAsGroup: 1000
        fsGroup: 1000
      containers:
      - name: c
        image: gcc:14-bookworm
        resources:
          requests:
            cpu: "1"
            memory: 512Mi
''') {
  node(POD_LABEL) {
    stage('Checkout') {
      git url: 'https://github.com/nginx/nginx.git'
    }
    stage('Build') {
      sh './auto/configure --with-http_ssl_module --with-http_v2_module'
      sh 'make'
    }
    stage('Checksums') {
      sh 'mkdir -p bin && cp objs/nginx bin/ && cd bin && sha1sum nginx > nginx.sha1 && sha512sum nginx > nginx.sha512'
    }
    stage('Archive') {
      archiveArtifacts artifacts: 'bin/*', fingerprint: true
    }
  }
}
