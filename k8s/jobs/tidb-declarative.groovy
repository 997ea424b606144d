// TiDB, declarative. The agent in a container of its own, named jnlp: it checks out and archives; the build runs beside it.
pipeline {
  agent {
    kubernetes {
      yaml '''
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
          - name: go
            image: golang:1.25-bookworm
            command: [sleep, infinity]
            env:
            - name: HOME
              value: /home/jenkins/agent
            resources:
              requests:
                cpu: "2"
                memory: 4Gi
      '''
    }
  }
  stages {
    stage('Checkout') {
      steps {
        git url: 'https://github.com/pingcap/tidb.git'
      }
    }
    stage('Build') {
      steps {
        container('go') {
          sh 'make server'
        }
      }
    }
    stage('Checksums') {
      steps {
        container('go') {
          sh 'cd bin && sha1sum tidb-server > tidb-server.sha1 && sha512sum tidb-server > tidb-server.sha512'
        }
      }
    }
    stage('Archive') {
      steps {
        archiveArtifacts artifacts: 'bin/*', fingerprint: true
      }
    }
  }
}
