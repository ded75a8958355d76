#!/bin/sh
# Writes Alertmanager's configuration from the environment (the settings ALERT_... in .env), and starts it. The alerts
# come by mail, to a webhook, or both; with neither they are only shown on its page.
set -eu
config=${ALERTMANAGER_CONFIG:-/tmp/alertmanager.yml}
umask 077 # the configuration has the password of the mail server

quote() { # as a YAML string: nothing in it has a meaning
    printf "'%s'" "$(printf '%s' "$1" | tr -d '\r\n' | sed "s/'/''/g")"
}

{
    echo "route:"
    echo "  receiver: team"
    echo "  group_by: [alertname]"
    echo "  group_wait: ${ALERT_GROUP_WAIT:-30s}"
    echo "  group_interval: 5m"
    echo "  repeat_interval: 12h"
    echo "  routes:"
    echo "    - matchers: ['severity = page']"
    echo "      repeat_interval: 1h"
    echo "receivers:"
    echo "  - name: team"
    if [ -n "${ALERT_WEBHOOK_URL:-}" ]; then
        echo "    webhook_configs:"
        echo "      - url: $(quote "$ALERT_WEBHOOK_URL")"
        echo "        send_resolved: true"
    fi
    if [ -n "${ALERT_MAIL_TO:-}" ]; then
        echo "    email_configs:"
        echo "      - to: $(quote "$ALERT_MAIL_TO")"
        echo "        from: $(quote "${ALERT_MAIL_FROM:?set ALERT_MAIL_FROM in .env: the sender of the mails}")"
        echo "        smarthost: $(quote "${ALERT_MAIL_SERVER:?set ALERT_MAIL_SERVER in .env: host:port of the mail server}")"
        echo "        require_tls: ${ALERT_MAIL_TLS:-true}"
        echo "        send_resolved: true"
        if [ -n "${ALERT_MAIL_USER:-}" ]; then
            echo "        auth_username: $(quote "$ALERT_MAIL_USER")"
            echo "        auth_password: $(quote "${ALERT_MAIL_PASSWORD:-}")"
        fi
    fi
} >"$config"
if [ -z "${ALERT_WEBHOOK_URL:-}${ALERT_MAIL_TO:-}" ]; then
    echo "no alert is sent to anybody: set ALERT_MAIL_TO or ALERT_WEBHOOK_URL in .env" >&2
fi
exec "${ALERTMANAGER:-/bin/alertmanager}" --config.file="$config" --cluster.listen-address= "$@"
