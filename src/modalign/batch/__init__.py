"""Many registrations: jobs from files to files, a folder each, on one machine or many; interrupted and resumed."""
