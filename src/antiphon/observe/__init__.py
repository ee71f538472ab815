"""Views of turn records: figures, tables, metrics, logs, spans and the report page. None of them measures anything."""
