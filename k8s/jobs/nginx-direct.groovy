// Nginx over a direct TCP connection: the pod is told the agent port's address and the controller's identity, and asks nothing
// over HTTP. How agents connect is the cloud's choice.
podTemplate(cloud: 'kubernetes-direct', yaml: '''
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
      - name: jnlp
        image: jenkins-agent:git
        # The agent takes 7 MB. The limit is for git, which runs in this container.
        resources:
          requests:
            cpu: 10m
            memory: 16Mi
          limits:
            memory: 1Gi
      - name: c
        image: gcc:14-bookworm
        command: [sleep, infinity]
        resources:
          requests:
            cpu: "1"
            memory: 512Mi
''') {
  node(POD_LABEL) {
    stage('Checkout') {
      git url: 'https://github.com/nginx/nginx.git'
    }
    container('c') {
      stage('Build') {
        sh './auto/configure --with-http_ssl_module --with-http_v2_module'
        sh 'make'
      }
      stage('Checksums') {
        sh 'mkdir -p bin && cp objs/nginx bin/ && cd bin && sha1sum nginx > nginx.sha1 && sha512sum nginx > nginx.sha512'
      }
    }
    stage('Archive') {
      archiveArtifacts artifacts: 'bin/*', fingerprint: true
    }
  }
}
